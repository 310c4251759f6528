"""Putting a name in the place of another, in one step of the file system."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import cache
from typing import Final

NAMELESS: Final = ".capsule-"
"""How the names begin that a file has before it has its own."""
_NO_REPLACE: Final = 1


def put(source: tuple[int, str], target: tuple[int, str], *, replace: bool) -> None:
    """Give a file or a directory another name, in another directory too. Raises OSError.

    Without `replace`, FileExistsError if there is something; where the system cannot look and rename in one step, a
    file gets its second name before it loses the first, and a directory is refused.
    """
    folder, name = source
    into, new = target
    if replace:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=into)
        return
    code = _rename_new(folder, name, into, new)
    if code in {errno.ENOSYS, errno.EINVAL} and stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
        os.link(name, new, src_dir_fd=folder, dst_dir_fd=into, follow_symlinks=False)
        os.unlink(name, dir_fd=folder)
    elif code:
        raise OSError(code, os.strerror(code), new)


def _rename_new(folder: int, name: str, into: int, new: str) -> int:
    function = _renameat2()
    if function is None:
        return errno.ENOSYS
    done = function(folder, os.fsencode(name), into, os.fsencode(new), _NO_REPLACE)
    return 0 if done == 0 else ctypes.get_errno()


@cache
def _renameat2() -> ctypes._NamedFuncPointer | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library that is older than the call
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function

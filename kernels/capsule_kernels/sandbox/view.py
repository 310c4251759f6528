"""What an environment needs of the file system, found out when all of its modules are loaded."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/nsswitch.conf"),
    *("/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/passwd", "/etc/group", "/etc/os-release"),
    *("/etc/mime.types", "/etc/fonts", "/var/cache/fontconfig", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage"),
)
"""What programs and libraries of the system read. Nothing of it is secret."""
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
TEMPORARY: Final = "/tmp"  # noqa: S108  # in a box with mounts of its own that is a part of its scratch
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108
_TOO_MUCH: Final = frozenset({"/", "/proc", "/sys", "/dev", "/etc", "/run", "/var", "/tmp", "/home"})  # noqa: S108
"""Nobody keeps modules there, but a broken path may name it."""


def needed(readable: Iterable[str]) -> list[str]:
    """Paths that code must be able to read, none of them below another; `readable` are those of the configuration."""
    wanted = {*SYSTEM, *readable, *_of_the_interpreter()}
    wanted |= {os.path.realpath(path) for path in wanted}
    found = _outermost(path for path in wanted if path not in _TOO_MUCH and os.path.lexists(path))
    return _outermost([*found, *_of_loaded_modules(found)])


def _of_the_interpreter() -> Iterator[str]:
    yield from (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    for executable in (sys.executable, os.path.realpath(sys.executable)):
        yield str(Path(executable).parent)
    yield from (path for path in sys.path if Path(path).is_absolute())


def _of_loaded_modules(covered: list[str]) -> Iterator[str]:
    """Of an editable install there is no entry in `sys.path`: its packages are where their files are."""
    for name, module in list(sys.modules.items()):
        if "." in name:
            continue
        file = getattr(module, "__file__", None)
        with suppress(Exception):  # what a module says of itself may be anything
            for place in _places(file, getattr(module, "__path__", None)):
                if not any(_is_below(place, path) for path in covered):
                    yield place


def of_modules(names: Iterable[str]) -> Iterator[str]:
    """The same for modules that are not loaded yet. Of one that cannot be found the import will tell."""
    for name in {name.partition(".")[0] for name in names}:
        with suppress(Exception):  # whatever finders of the environment's have to say against it
            spec = find_spec(name)
            if spec is not None:
                yield from _places(spec.origin if spec.has_location else None, spec.submodule_search_locations)


def _places(file: str | None, folders: Iterable[str] | None) -> list[str]:
    """Where a module is; of a namespace package, which has no file, where its parts are."""
    if file is not None:
        folders = [file if folders is None else str(Path(file).parent)]
    return [path for path in folders or () if path.startswith("/") and path not in _TOO_MUCH]


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths}):
        if not any(_is_below(path, other) for other in kept):
            kept.append(path)
    return kept


def _is_below(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}/")

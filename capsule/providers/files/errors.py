"""What the system says of a path, in the words of calls."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from capsule.beneath import Astray
from capsule_protocol.errors import CapabilityDenied, CapabilityError, CapabilityFailed, CapsuleError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASTRAY = {
    errno.ELOOP: "is a link, or leads through one",
    errno.EBUSY: "is where something is mounted",
    errno.EXDEV: "leads to another file system",
    errno.ENXIO: "is a special file",
    errno.ENODEV: "is a special file",
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.EILSEQ: "has a name that the file system does not allow",
}
_PLAIN = {
    errno.ENOENT: ("path_unknown", "does not exist"),
    errno.EEXIST: ("path_exists", "exists already"),
    errno.EISDIR: ("path_is_directory", "is a directory"),
    errno.ENOTDIR: ("path_not_directory", "is no directory, or leads through something that is none"),
    errno.ENOTEMPTY: ("path_not_empty", "is not empty"),
    errno.EMFILE: ("provider_unavailable", "cannot be opened now: the node has no descriptor left"),
    errno.ENFILE: ("provider_unavailable", "cannot be opened now: the machine has no descriptor left"),
}


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Raise CapabilityDenied `path_refused` or CapabilityFailed for what the system says of a path."""
    try:
        yield
    except CapsuleError:  # some of them are OSErrors too
        raise
    except Astray as error:
        raise refused(path, str(error)) from error
    except OSError as error:
        raise _told(path, error) from error


def refused(path: str, why: str) -> CapabilityDenied:
    """The one error for a path that leads elsewhere, whatever it is."""
    return CapabilityDenied("path_refused", f"{path[:200]!r} {why}")


def failed(path: str, why: str) -> CapabilityFailed:
    """It was allowed and could not be done."""
    return CapabilityFailed("capability_failed", f"{path[:200]!r} {why}")


def too_many(path: str, what: str, most: int) -> CapabilityFailed:
    """A bound of the scope."""
    return CapabilityFailed("capability_too_large", f"{path[:200]!r} has more than {most} {what}")


def _told(path: str, error: OSError) -> CapabilityError:
    code = error.errno or 0
    if code in _ASTRAY:
        return refused(path, _ASTRAY[code])
    if code in _PLAIN:
        name, why = _PLAIN[code]
        return CapabilityFailed(name, f"{path[:200]!r} {why}")
    return failed(path, f"could not be used: {error.strerror or error}")

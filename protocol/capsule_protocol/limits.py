"""The bounds of a link: what one message may hold. Both ends start from the defaults and negotiate them in `hello`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB = 2**20
STRUCTURE: Final = 4
"""As much as so many numbers is what a pair of a map costs its reader, or a map or array that is empty."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Each bound is inclusive; a message over one of them is refused with `message_too_large` that names it."""

    message_bytes: int = 64 * MIB
    """All frames of one message together."""
    header_bytes: int = 64 * 1024
    """The first frame."""
    buffers: int = 1024
    """The frames behind header and body."""
    depth: int = 64
    """How deep maps and arrays of a body may be nested; the body itself is level 1."""
    items: int = 2**19
    """What a body holds altogether: an item of an array counts once; a pair of a map, and each map and array itself,
    STRUCTURE times. It bounds the memory that a decoded body takes, and the time for which its reader can do nothing
    else."""
    streams: int = 1024
    """Streams of a link that are not over."""
    code_bytes: int = 16 * MIB
    """The source of one execution, in UTF-8."""


DEFAULT_LIMITS = Limits()

CHECKPOINT_NAMES: Final = 10_000
"""Names that a checkpoint of a session may have."""
CAPABILITY_NAME: Final = 200
"""Characters of the name of a capability."""
POSITIONAL: Final = 64
"""Arguments without a name of one call."""

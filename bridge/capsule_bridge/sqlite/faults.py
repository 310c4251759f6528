"""Places at which a process may die or a disk may fail: tests hand in a function that makes it so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

FaultPoint = Literal[
    "taken",
    "begun",
    "file_written",
    "file_named",
    "executed",
    "before_commit",
    "committed",
    "answered",
    "before_checkpoint",
    "checkpointed",
]
"""In the order in which the writer comes by; `executed` after each operation of a batch."""

Fault: TypeAlias = Callable[[FaultPoint], None]


def no_fault(_point: FaultPoint) -> None:
    """What is done at these places in earnest."""

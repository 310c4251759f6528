"""The files of a session's checkpoints, in its box's directory: hostile code may change each of them at any time."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from capsule.node.checkpoints.sealing import refused, seal, unseal
from capsule.node.transfers.beneath import explained, open_file, open_top
from capsule.node.transfers.files import make_folder
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.node.checkpoints.manifest import Manifest
    from capsule.node.scratch import Scratch

FOLDER: Final = "checkpoints"
"""The folder of a box's directory where they are; its code has no business there."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def prepare(box: Path | Scratch, name: str) -> None:
    """Make the folder, and see to it that there is no file of this name."""
    make_folder(box, FOLDER)
    remove(box, name)


def sign(box: Path | Scratch, values: str, name: str, key: bytes, fields: dict[str, Any]) -> Manifest:
    """Make a checkpoint of the values that the worker has written. Raises SessionError, and then nothing is left."""
    top = _top(box)
    try:
        with explained(name):
            source, _ = open_file(top, values)
            try:
                target = os.open(name, _NEW, 0o600, dir_fd=top)
                try:
                    return seal(key, fields, source, target)
                finally:
                    os.close(target)
            finally:
                os.close(source)
    except BaseException:
        remove(box, name)
        raise
    finally:
        remove(box, values)
        os.close(top)


def check(box: Path | Scratch, name: str, key: bytes, owner: str, max_bytes: int) -> Manifest:
    """The manifest of an uploaded checkpoint, if it is this key's and this owner's. Raises SessionError."""
    top = _top(box)
    try:
        with explained(name):
            source, status = open_file(top, name)
            try:
                if status.st_size > max_bytes:
                    message = f"the checkpoint has {status.st_size} bytes, more than max_checkpoint_bytes={max_bytes}"
                    raise SessionError("checkpoint_too_large", message)
                manifest = unseal(key, source)
            finally:
                os.close(source)
    finally:
        os.close(top)
    if manifest.owner != owner:
        raise refused("other_principal", "the checkpoint is of a session of another principal")
    return manifest


def remove(box: Path | Scratch, name: str) -> None:
    """Remove a file if it is there."""
    try:
        top = open_top(box, FOLDER)
    except OSError:
        return  # the box is gone, and they with it
    try:
        with suppress(OSError):  # none of this name, or the code has put something else there
            os.unlink(name, dir_fd=top)
    finally:
        os.close(top)


def _top(box: Path | Scratch) -> int:
    try:
        return open_top(box, FOLDER)
    except OSError as error:
        message = f"the place of the session's checkpoints is gone, or is something else: {error.strerror}"
        raise SessionError("checkpoint_failed", message) from error

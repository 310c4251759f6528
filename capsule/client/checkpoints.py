"""A session's names saved to a file, and brought back."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.client.answers import LeftOutName, RestoreReport, SavedName, SaveReport
from capsule.client.arguments import check_flag, check_text, check_timeout
from capsule.client.targets import CheckpointTarget, Target
from capsule.client.transfers import AsyncTransfers, receive, send
from capsule.node.auth.principals import LOCAL
from capsule.node.checkpoints import LoadRequest, SaveRequest
from capsule.node.transfers.threads import made_on_thread
from capsule_protocol.errors import ArgumentError, CapsuleError
from capsule_protocol.ids import new_id
from capsule_protocol.limits import CHECKPOINT_NAMES

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Iterable

    from capsule.client.inner import AnyCheckpoints
    from capsule.client.sources import Source
    from capsule_protocol.messages import checkpoints as words

logger = logging.getLogger("capsule.client")

FILE = "f_"
MAX_NAME = 200
"""Characters of a name."""


class AsyncCheckpoints(AsyncTransfers):
    """What the session has, to a file and back. Both wait for their turn behind what was submitted before."""

    async def save(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        names: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> SaveReport:
        """Save the names that the code has defined to a file of this machine, without a path into the report.

        Values that cannot leave their process (open files, locks, generators …) are left out, and the report says why.
        `names`: only these, and those that their functions use. `timeout` in seconds, counted from when its turn comes.
        The file is there when it is whole. Raises ArgumentError, SessionError `checkpoint_too_large`,
        `checkpoint_failed`, and ExecutionError when it was interrupted or ended by force.
        """
        self.check_open()
        target = None if path is None else Path(check_text(path, "path"))
        saving = Saving(self._inner.checkpoints, self.own, self._is_closed)
        return await saving.save(target, check_names(names), check_timeout(timeout))

    async def restore(
        self,
        source: Source,
        *,
        names: Iterable[str] | None = None,
        timeout: float | None = None,
        allow_other_interpreter: bool = False,
    ) -> RestoreReport:
        """Set the names in a file that `save` has made, or only some of them; all others stay as they are.

        `source` is a path, bytes or a binary file. Only what this node (in library mode: this user) has saved, of a
        session of the same principal, is ever loaded. Raises as `save` does, and SessionError `checkpoint_refused`,
        `checkpoint_mismatch`; then no name has changed. `allow_other_interpreter`: data, but no functions or classes,
        may come from another version of Python.
        """
        self.check_open()
        allow = check_flag(allow_other_interpreter, "allow_other_interpreter")
        saving = Saving(self._inner.checkpoints, self.own, self._is_closed)
        return await saving.restore(source, check_names(names), check_timeout(timeout), allow_other_interpreter=allow)

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background, at most until the session is closed."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Saving:
    """One session being saved or restored; `own` runs in the background what must be done though the caller leaves."""

    checkpoints: AnyCheckpoints
    own: Callable[[Coroutine[Any, Any, None]], None]
    is_over: Callable[[], bool]

    async def save(self, path: Path | None, names: list[str] | None, timeout: float | None) -> SaveReport:
        """Have it made, and fetch it."""
        file = new_id(FILE)
        target = await made_on_thread(lambda: Target() if path is None else CheckpointTarget(path), Target.discard)
        try:
            try:
                report = await self.checkpoints.save(SaveRequest(file, LOCAL.name, names, timeout))
            except BaseException:
                target.discard()
                raise
            data = await receive(self.checkpoints.files, file, target, None, self.is_over)
        except BaseException:
            self.own(self._discard(file))
            raise
        await self._discard(file)
        return SaveReport(
            path=None if path is None else str(path),
            size=target.offset,
            saved=[SavedName(saved.name, saved.type, saved.size) for saved in report.names],
            left_out=_left_out(report.left_out),
            packages=report.packages,
            has_code=report.has_code,
            data=data,
        )

    async def restore(
        self, source: Source, names: list[str] | None, timeout: float | None, *, allow_other_interpreter: bool
    ) -> RestoreReport:
        """Bring it there, and have it loaded."""
        file = new_id(FILE)
        try:
            await send(self.checkpoints.files, source, file, None, self.is_over)
            reply = await self.checkpoints.load(LoadRequest(file, LOCAL.name, names, timeout, allow_other_interpreter))
        except BaseException:
            self.own(self._discard(file))
            raise
        versions = {name: (then, now) for name, (then, now) in reply.report.other_versions.items()}
        return RestoreReport(
            reply.report.restored, reply.report.replaced, reply.created, _left_out(reply.left_out), versions
        )

    async def _discard(self, file: str) -> None:
        """Best effort: what is left at the node is bounded, and ends with the session."""
        try:
            await self.checkpoints.discard(file)
        except CapsuleError as error:
            logger.info("a checkpoint could not be discarded: %s", error)


def check_names(names: Iterable[str] | None) -> list[str] | None:
    """The names, each once. Raises ArgumentError."""
    if names is None:
        return None
    allowed = f"at most {CHECKPOINT_NAMES} names of 1 to {MAX_NAME} characters, or None for all"
    if isinstance(names, (str, bytes)):
        raise ArgumentError("names", f"is a {type(names).__name__}", allowed=allowed)
    checked: dict[str, None] = {}
    with suppress(TypeError):
        for name in names:
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or len(checked) >= CHECKPOINT_NAMES:
                raise ArgumentError("names", f"has {name!r:.80}, or too many", allowed=allowed)
            checked[name] = None
        return list(checked)
    raise ArgumentError("names", f"is a {type(names).__name__}", allowed=allowed)


def _left_out(names: list[words.LeftOut]) -> list[LeftOutName]:
    return [LeftOutName(one.name, one.type, one.reason, one.where) for one in names]

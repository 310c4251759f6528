"""Saves and restores one session: the worker writes and reads the values, in its turn; the node signs and checks."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from capsule.events import ClearOutput, CommMessage, Display, Event, Finished, Output, Progress
from capsule.node.checkpoints import files
from capsule.node.checkpoints.sealing import MAGIC
from capsule.node.execution import ExecuteRequest, Turn
from capsule.node.transfers import SessionFiles
from capsule.node.transfers.threads import on_thread
from capsule_protocol.errors import CapsuleError, SessionError
from capsule_protocol.ids import new_id
from capsule_protocol.messages.checkpoints import LoadReply, LoadReport, SaveReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from capsule.config import SessionOptions
    from capsule.node.checkpoints.manifest import Manifest
    from capsule.node.execution import Execution
    from capsule.node.scratch import Scratch
    from capsule_protocol.messages.link import Ready

R = TypeVar("R", bound=BaseModel)

MAX_KEPT: Final = 8
"""Checkpoints of a session that wait at the node to be downloaded; the oldest go first."""
VALUES: Final = "v_"
"""Begins the names of files that a worker has written and the node has not signed yet."""
_TOLD = (Output, Display, ClearOutput, Progress, CommMessage)


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """What to save under which name, and how long that may take. `owner` is the principal whose session it is."""

    file: str
    owner: str
    names: list[str] | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """The same for an uploaded checkpoint that is to be restored."""

    file: str
    owner: str
    names: list[str] | None = None
    timeout: float | None = None
    allow_other_interpreter: bool = False


class Host(Protocol):
    """What it needs of the session."""

    name: str
    options: SessionOptions
    checkpoint_bytes: Callable[[], int]
    """How large a checkpoint may be."""

    def submit(self, request: ExecuteRequest, execution_id: str = "") -> Execution:
        """Line up a turn of the worker."""

    async def cancel(self, execution_id: str) -> bool:
        """End it."""

    def on_late(self, event: Event) -> None:
        """Tell what belongs to no stream."""


@dataclass(slots=True)
class _Attempt:
    """A checkpoint being made or restored."""

    execution: Execution | None = None
    unwanted: bool = False


class SessionCheckpoints:
    """Those of one worker: the session's next worker has others. `files` moves them to and from clients."""

    def __init__(self, host: Host, box: Path | Scratch, ready: Ready) -> None:
        self.files = SessionFiles(box, files.FOLDER)
        self._host = host
        self._box = box
        self._ready = ready
        self._under_way: dict[str, _Attempt] = {}
        self._kept: list[str] = []
        self._quiet = asyncio.Event()

    async def save(self, request: SaveRequest) -> SaveReport:
        """Make a checkpoint, which can be downloaded then. Raises CapsuleError.

        It waits for its turn behind the executions of before. A caller that is cancelled interrupts it.
        """
        values, limit = new_id(VALUES), self._host.checkpoint_bytes()
        with self._attempt(request.file) as attempt:
            key = await on_thread(_key)
            await on_thread(files.prepare, self._box, request.file)
            body = {"file": values, "names": request.names, "max_bytes": limit}
            try:
                finished = await self._turn(attempt, Turn("write_state", body), request.timeout)
                report = _read(SaveReport, finished)
                fields = self._fields(report, request.owner)
                await on_thread(files.sign, self._box, values, request.file, key, fields)
            except BaseException:
                await on_thread(files.remove, self._box, values)
                raise
            await self._keep(request.file)
        return report

    async def load(self, request: LoadRequest) -> LoadReply:
        """Restore an uploaded checkpoint, which is gone then. Raises CapsuleError; as `save` otherwise."""
        name, box = request.file, self._box
        with self._attempt(name) as attempt:
            try:
                key = await on_thread(_key)
                manifest = await on_thread(files.check, box, name, key, request.owner, self._host.checkpoint_bytes())
                manifest.check_interpreter(
                    self._ready.python, self._ready.implementation, allow_other=request.allow_other_interpreter
                )
                turn = Turn("read_state", _reading(request, manifest))
                finished = await self._turn(attempt, turn, request.timeout)
            finally:
                await on_thread(files.remove, box, name)
        report = _read(LoadReport, finished)
        return LoadReply(report=report, created=manifest.created, left_out=manifest.left_out)

    async def discard(self, name: str) -> None:
        """Nobody needs it: cancel what is under way with it, and remove it. Idempotent."""
        attempt = self._under_way.get(name)
        if attempt is not None:  # whoever waits for it removes what there is
            attempt.unwanted = True
            if attempt.execution is not None:
                await self._host.cancel(attempt.execution.id)
            return
        if name in self._kept:
            self._kept.remove(name)
        await on_thread(files.remove, self._box, name)

    def holds(self, name: str) -> bool:
        """Whether a checkpoint that was made waits to be downloaded."""
        return name in self._kept and not self.files.closed

    async def settled(self) -> None:
        """Wait until nothing is being saved or restored."""
        while self._under_way:
            self._quiet.clear()
            await self._quiet.wait()

    @contextmanager
    def _attempt(self, name: str) -> Iterator[_Attempt]:
        if name in self._under_way:
            raise SessionError("checkpoint_failed", f"something is under way with the checkpoint {name!r} already")
        attempt = self._under_way[name] = _Attempt()
        try:
            yield attempt
        finally:
            del self._under_way[name]
            self._quiet.set()

    async def _turn(self, attempt: _Attempt, turn: Turn, timeout: float | None) -> Finished:
        """Have the worker do something in its turn. What its code prints on the way belongs to no stream."""
        if attempt.unwanted:
            raise SessionError("checkpoint_failed", "it was discarded before its turn came")
        execution = self._host.submit(ExecuteRequest("", timeout, store_history=False, turn=turn))
        attempt.execution = execution
        try:
            async for event in execution:
                if isinstance(event, _TOLD):
                    self._host.on_late(replace(event, sequence=0))
        except BaseException:
            await self._host.cancel(execution.id)
            raise
        assert execution.verdict is not None
        if execution.verdict.error is not None:
            raise CapsuleError.from_dict(asdict(execution.verdict.error))
        return execution.verdict

    async def _keep(self, name: str) -> None:
        self._kept.append(name)
        while len(self._kept) > MAX_KEPT:
            await on_thread(files.remove, self._box, self._kept.pop(0))

    def _fields(self, report: SaveReport, owner: str) -> dict[str, Any]:
        """What the manifest says, but for the hash."""
        from importlib.metadata import version  # late: few save their sessions

        return {
            "created": time.time(),
            "owner": owner,
            "session": self._host.name,
            "environment": self._host.options.environment,
            "capsule": version("capsule-exec"),
            "python": self._ready.python,
            "implementation": self._ready.implementation,
            "size": report.size,
            "has_code": report.has_code,
            "names": report.names,
            "left_out": report.left_out,
            "packages": report.packages,
        }


def _reading(request: LoadRequest, manifest: Manifest) -> dict[str, Any]:
    """What the worker is asked to read."""
    return {
        "file": request.file,
        "offset": len(MAGIC),
        "size": manifest.size,
        "sha256": manifest.sha256,
        "saved": [saved.name for saved in manifest.names],
        "names": request.names,
        "packages": manifest.packages,
    }


def _key() -> bytes:
    from capsule.node.auth.keystore import KeyStore  # late: it loads the library of TCP

    return KeyStore().checkpoint_key()


def _read(model: type[R], finished: Finished) -> R:
    """The report of a worker, which may say anything."""
    try:
        return model.model_validate(finished.data)
    except ValidationError as error:
        raise SessionError("checkpoint_failed", "the worker's report cannot be read") from error

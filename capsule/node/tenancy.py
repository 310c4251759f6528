"""The worker that a session has, one at a time: how it comes from the pool, and what comes and goes with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from anyio import CancelScope

from capsule.node.checkpoints import SessionCheckpoints
from capsule.node.outgoing import opening
from capsule.node.points import Points
from capsule.node.pulse import Pulse
from capsule.node.transfers import SessionFiles
from capsule_protocol.errors import WorkerLost

if TYPE_CHECKING:
    from capsule.node.home import Home, Identity
    from capsule.node.session import Session
    from capsule.node.worker import Worker
    from capsule_protocol.envelope import Envelope


class Tenancy:
    """That of one session, which hears of the worker's end and passes it on: `lose`, then `wind_up`."""

    def __init__(self, session: Session, home: Home, identity: Identity) -> None:
        self._session = session
        self._pools = home.pools
        self._tasks = home.tasks
        self._loop = asyncio.get_running_loop()
        self.will = identity.will
        self._owner = identity.principal
        self._watch: asyncio.Task[None] | None = None
        self.worker: Worker | None = None
        self.points: Points | None = None
        """If it may outlive this node."""
        self.files: SessionFiles | None = None
        """Those of the newest worker, as its checkpoints."""
        self.checkpoints: SessionCheckpoints | None = None
        self.pulse = Pulse(self._loop, home.heartbeat_interval, self.send_urgent)

    def send_urgent(self, envelope: Envelope) -> None:
        """Send to the worker, if there is one."""
        if self.worker is not None:
            self.worker.send_urgent(envelope)

    def pause(self) -> None:
        """Read nothing more of the worker, if there is one."""
        if self.worker is not None:
            self.pulse.paused = True
            self.worker.pause()

    def resume(self) -> None:
        """Read again."""
        if self.worker is not None:
            self.pulse.paused = False
            self.worker.resume()

    async def acquire(self) -> Worker:
        """A worker of the pool that is this session's; one that had ended unnoticed costs another try.

        Raises what the pool does, WorkerLost, or what the worker says against the options.
        """
        worker = await self._pools.take(self._session.options)
        try:
            await self._open(worker)
        except WorkerLost:
            if not worker.died.done():
                raise
        else:
            return worker
        worker = await self._pools.take(self._session.options)
        await self._open(worker)
        return worker

    def begin(self, worker: Worker) -> None:
        """From now on it is this worker."""
        session = self._session
        self.worker = worker
        self.files = SessionFiles(worker.scratch)
        session.powers.begin(worker, session.epoch)
        self.checkpoints = SessionCheckpoints(session, worker.scratch, worker.ready)
        self._watch = worker.watching
        if worker.survival is not None:
            self.points = Points(self._loop, worker)
            worker.on_full = self.points.relieve

    @property
    def submitters(self) -> tuple[str, ...]:
        """Who beside the owner has had code run in a worker that another node has left."""
        return () if self.will is None else self.will.submitters

    def add_submitter(self, principal: str) -> None:
        """This principal is about to have code run in the worker; "": the owner of the session.

        It is in the record of a worker that may outlive this node before that has the code: the next node must know of
        everybody whose code may run there. Raises StoreError if it cannot be written down.
        """
        if self.will is not None and self.worker is not None and principal not in {"", self._owner}:
            self.will.add_submitter(principal)

    def lose(self) -> Worker | None:
        """The worker has ended: here it is for the last time."""
        worker, self.worker = self.worker, None
        if self.points is not None:
            self.points.close()
            self.points = None
        if worker is not None:
            self._pools.give_back(worker)
        return worker

    def wind_up(self) -> None:
        """End what went with a worker that was lost."""
        self.pulse.stop()
        if self.files is not None:
            self._tasks.start(self.files.close())
        if self.checkpoints is not None:
            self._tasks.start(self.checkpoints.files.close())

    async def end(self, cause: Literal["restart", "close"]) -> None:
        """End the worker, and wait until its end has been told."""
        if self.files is not None:
            await self.files.close()
        if self.checkpoints is not None:
            await self.checkpoints.files.close()
        if self.worker is not None:
            self.worker.end(cause)
            self._pools.give_back(self.worker)
        if self._watch is not None:
            await asyncio.wait([self._watch])

    async def _open(self, worker: Worker) -> None:
        session, options = self._session, self._session.options
        limit = options.start_timeout
        try:
            async with asyncio.timeout(limit):
                worker.drain_timeout = options.drain_timeout
                bounds = {"memory_bytes": options.memory_bytes, "max_processes": options.max_processes}
                told = opening(session.id, options, session.name, session.epoch, granted=session.powers.any)
                await worker.open(session, told, **bounds)
                if self.will is not None:
                    await self.will.leave(session, worker)
        except BaseException as error:
            self._pools.give_back(worker)
            with CancelScope(shield=True):
                await worker.gone.wait()
            if isinstance(error, TimeoutError):
                message = f"the session was not open within start_timeout={limit:g} s"
                raise WorkerLost("worker_start_timeout", message) from None
            raise

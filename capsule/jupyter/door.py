"""Where kernels are asked for: a Unix socket. Each connection is the lease of one kernel, which ends with it.

What is said is lines of JSON, for whoever stands in for a kernel must start in no time, without any library. Asked for
is `start` (again and again, each when the kernel has ended), `signal` and `end`; told is `started`, `signalled`,
`exited`, `error`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from capsule import runtime
from capsule.config import SessionOptions
from capsule.jupyter.lease import SOCKET
from capsule.node.tasks import Tasks
from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from capsule.jupyter.connection import Connection
    from capsule.jupyter.inner import AnyNode
    from capsule.jupyter.kernel import Kernel

logger = logging.getLogger("capsule.jupyter")

NODE: Final = "CAPSULE_NODE"
"""The variable that says to code in a kernel where its node is, so that others can attach."""
MAX_LINE: Final = 2**22
"""Bytes that a request may have; the environment of a process is less."""
PARKED: Final = 10.0
"""Seconds that the sockets of a kernel wait for somebody who starts it again, when nobody has said that it is over."""
COLOURS: Final = "--InteractiveShell.colors=neutral"
"""Front ends show tracebacks and help as IPython colours them; whoever wants others says so behind this."""
NOTEBOOK: Final = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}
"""What programs are told that write into a notebook, as by ipykernel: it shows colours, and has no keyboard."""
FIRST: Final = 10.0
"""Seconds that whoever has started a node has to come, at least."""
_TRAIT: Final = re.compile(r"--([A-Za-z_]\w*)\.[a-z_]\w*=")
_OTHERS: Final = frozenset(
    {
        *("Application", "SingletonConfigurable", "BaseIPythonApplication", "InteractiveShellApp", "IPKernelApp"),
        *("ConnectionFileMixin", "ProfileDir", "Session", "Kernel", "IPythonKernel"),
    }
)
"""What ipykernel's application is made of, and configures: there is no such application here."""
_ALLOWED: Final = 'a line of JSON with "op": "start", "signal" (with a "number" from 1 to 64) or "end"'
_CREDENTIALS: Final = struct.Struct("iII")


class Start(BaseModel):
    """Ask for a kernel. `connection` is what a connection file says, as far as it matters; `arguments` are a kernel's.

    `env` is merged over what the environment has.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    op: Literal["start"]
    name: str = Field("", max_length=200)
    environment: str = Field("default", max_length=200)
    cwd: str | None = None
    env: dict[str, str] = {}
    arguments: list[str] = []
    connection: dict[str, Any] = {}


class Signal(BaseModel):
    """What a signal means for a kernel; without one, nothing."""

    model_config = ConfigDict(extra="ignore", strict=True)

    op: Literal["signal"]
    number: int = Field(ge=1, le=64)


class End(BaseModel):
    """The kernel is over: nobody is going to start it again."""

    op: Literal["end"]


Request: TypeAlias = Start | Signal | End
_REQUEST: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


class Door:
    """Takes kernels' leases from processes of this user, until `close`.

    With `idle`, `on_idle` is called when there has been no kernel for so many seconds.
    """

    def __init__(
        self, node: AnyNode, directory: Path, *, idle: float | None = None, on_idle: Callable[[], None] | None = None
    ) -> None:
        self.node = node
        self.address = f"ipc://{directory / runtime.SOCKET}"
        self._path = directory / SOCKET
        self._tasks = Tasks()
        self._server: asyncio.Server | None = None
        self._leases: set[Lease] = set()
        self._parked: dict[Connection, tuple[Kernel, asyncio.TimerHandle]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._idle = idle
        self._on_idle = on_idle
        self._timer: asyncio.TimerHandle | None = None

    @property
    def kernels(self) -> int:
        """How many leases there are."""
        return len(self._leases)

    async def listen(self) -> None:
        """Begin. The directory must be one that only this user may enter."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Lease(self, self._tasks), self._path)
        self._path.chmod(0o600)
        self._rest(FIRST)

    async def close(self) -> None:
        """End all kernels. Idempotent."""
        self._closed = True
        if self._server is not None:
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening)
            await asyncio.sleep(0)  # a server that is closed forgets whom it is just letting in
            self._server.close()
            self._path.unlink(missing_ok=True)
        if self._timer is not None:
            self._timer.cancel()
        self._idle = None
        for lease in list(self._leases):
            lease.hang_up()
        while self._leases:  # they leave in the loop's next turn
            await asyncio.sleep(0)
        for connection in list(self._parked):
            self._unpark(connection)
        await self._tasks.close()
        await asyncio.gather(*self._closing)

    # --- for the leases ---

    def enter(self, lease: Lease) -> bool:
        """Somebody has come; whether they may. Whom the system had let in when the door closed is sent away."""
        if self._closed:
            return False
        self._leases.add(lease)
        if self._timer is not None:
            self._timer.cancel()
        return True

    async def make(self, connection: Connection, name: str) -> Kernel:
        """A kernel that listens there: one that waits for its next session, or a new one. Raises NodeError."""
        parked = self._parked.pop(connection, None)
        if parked is not None:
            parked[1].cancel()
            return parked[0]
        if self._closing:  # one of these may still have the ports
            await asyncio.gather(*self._closing)
        from capsule.jupyter.kernel import Kernel  # late: a node without kernels has no need of Jupyter

        return Kernel(name, self.node, connection)

    def leave(self, lease: Lease, kernel: Kernel | None) -> None:
        """A lease has ended, and with it its kernel. Who restarts one by another process finds its sockets bound."""
        self._leases.discard(lease)
        if kernel is not None:
            if kernel.over:
                self._end(kernel.close())
            else:
                self._end(kernel.end())
                loop = asyncio.get_running_loop()
                connection = kernel.connection
                self._parked[connection] = kernel, loop.call_later(PARKED, self._unpark, connection)
        self._rest()

    # --- inside ---

    def _unpark(self, connection: Connection) -> None:
        kernel, timer = self._parked.pop(connection)
        timer.cancel()
        self._end(kernel.close())
        self._rest()

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _rest(self, least: float = 0.0) -> None:
        """Nobody may need this node for a while."""
        if self._idle is not None and not (self._leases or self._parked):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(max(self._idle, least), self._tire)

    def _tire(self) -> None:
        if self._on_idle is not None and not (self._leases or self._parked):
            self._on_idle()


class Lease(asyncio.Protocol):
    """One connection. What comes is acted on at once, so that an interrupt is for what runs when it comes."""

    def __init__(self, door: Door, tasks: Tasks) -> None:
        self._door = door
        self._tasks = tasks
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._kernel: Kernel | None = None
        self._starting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if _user(transport) != os.getuid() or not self._door.enter(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Some lines, and the beginning of another."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > MAX_LINE:
            self.hang_up()

    def connection_lost(self, _error: Exception | None) -> None:
        """The other end has hung up, or is gone: so is the kernel."""
        self._transport = None
        if self._starting is not None:
            self._starting.cancel()
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.on_exit = None
        self._door.leave(self, kernel)

    def hang_up(self) -> None:
        """The node ends."""
        if self._transport is not None:
            self._transport.close()

    def _take(self, line: bytes) -> None:
        try:
            request = _REQUEST.validate_json(line)
        except ValidationError as error:
            from capsule.jupyter.connection import first_mistake  # late: see `Door.make`

            where, what = first_mistake(error)
            self._refuse(ArgumentError(where or "request", what, allowed=_ALLOWED))
            return
        if isinstance(request, Signal):
            if self._kernel is not None:
                self._kernel.signal(request.number)
            self._tell(event="signalled")
        elif isinstance(request, End):
            if self._kernel is not None:
                self._kernel.over = True
            self.hang_up()
        elif self._starting is not None and not self._starting.done():
            self._refuse(SessionError("unsupported", "the kernel is being started already"))
        else:
            self._starting = self._tasks.start(self._start(request))

    async def _start(self, request: Start) -> None:
        try:
            if self._kernel is None:
                await self._make(request)
            assert self._kernel is not None
            pid = await self._kernel.start(_options(request, self._door.address))
        except CapsuleError as error:
            self._refuse(error)
        except Exception:
            logger.exception("a kernel could not be started")
            self._refuse(SessionError("internal_error", "the node made a mistake; see its log"))
        else:
            self._tell(event="started", pid=pid, connection=self._kernel.connection.model_dump())

    async def _make(self, request: Start) -> None:
        from capsule.jupyter.connection import check_connection  # late: see `Door.make`

        self._kernel = await self._door.make(check_connection(request.connection), request.name or "kernel")
        self._kernel.on_exit = lambda code: self._tell(event="exited", code=code)

    def _refuse(self, error: CapsuleError) -> None:
        self._tell(event="error", code=error.code, message=error.message, hint=error.hint)

    def _tell(self, **told: Any) -> None:
        if self._transport is not None:
            self._transport.write(json.dumps(told).encode() + b"\n")


def _options(request: Start, address: str) -> SessionOptions:
    places = [place for place in request.env.get("PYTHONPATH", "").split(os.pathsep) if place]
    return SessionOptions.build(
        environment=request.environment,
        cwd=request.cwd,
        env={**request.env, **NOTEBOOK, NODE: address},
        path=(*places, ""),  # modules beside the notebook are found behind them
        ipython=(COLOURS, *_for_ipython(request.arguments)),
        interrupt_kills=False,  # who wants that restarts the kernel: a notebook's variables may be the work of hours
    )


def _for_ipython(arguments: list[str]) -> Iterator[str]:
    """What configures IPython; what is meant for ipykernel's own application has no meaning here."""
    for argument in arguments:
        found = _TRAIT.match(argument)
        if found is not None and found[1] not in _OTHERS:
            yield argument
        else:
            logger.warning("the argument %.80s of a kernel has no meaning here", argument)


def _user(transport: asyncio.Transport) -> int:
    connected = transport.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)

"""The session of a synchronous client, and what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack

from capsule.client.arguments import CellOptions, ExecuteOptions, check_callback, check_codes, check_execute, check_flag
from capsule.client.progress import Progress
from capsule.client.results import Collector, Result
from capsule.client.sync_comms import Comms
from capsule.client.sync_execution import Events, Execution, OnEvent, OnInput
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from capsule.client.execution import AsyncExecution
    from capsule.client.inputs import Json
    from capsule.client.portal import Portal
    from capsule.client.session import AsyncSession
    from capsule.client.sync import Client
    from capsule.events import Event, InputRequest
    from capsule.node.session import SessionInfo


class Session(Comms):
    """A worker process of one's own that keeps its state from one `run` to the next; made by `client.session()`.

    Executions run one after another, in order of submission. Every method raises SessionError when the session or its
    client is closed. Closing it ends the worker with all its processes and files.
    """

    def __init__(self, client: Client, portal: Portal, inner: AsyncSession) -> None:
        super().__init__(portal, inner)
        self._client = client  # a client that is dropped closes its sessions

    def __repr__(self) -> str:
        return repr(self._inner).replace("AsyncSession", "Session", 1)

    @property
    def id(self) -> str:
        """`s_` and 16 characters."""
        return self._inner.id

    @property
    def name(self) -> str:
        """The name that the session was given; its id without one."""
        return self._inner.name

    @property
    def epoch(self) -> int:
        """1 for its first worker, and 1 more for each whose state was lost; as far as this client knows."""
        return self._inner.epoch

    @property
    def state(self) -> str:
        """`starting`, `ready`, `busy`, `restarting`, `dead` or `closed`."""
        return self._inner.state

    def run(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
        progress: bool = False,
        **options: Unpack[ExecuteOptions],
    ) -> Result:
        """Run `code` and wait for its result, whatever the verdict.

        `timeout` in seconds, counted from the start of the code. Without `on_input`, `input()` raises EOFError. Both
        callbacks are called in the calling thread. `progress`: output and elapsed time are shown, in a terminal, in a
        notebook, or as plain text. `key` is refused in library mode. Raises ArgumentError
        for a bad argument, SessionError when the session cannot run code, and what the callbacks raised.
        """
        check_callback(on_event, "on_event")
        check_callback(on_input, "on_input")
        if check_flag(progress, "progress"):
            with Progress() as shown:
                on_event, on_input = _watched(shown, on_event), _asked(shown, on_input)
                return self.run(code, timeout=timeout, key=key, on_event=on_event, on_input=on_input, **options)
        if on_event is None and on_input is None:
            return self._portal.call(self._inner.run, code, timeout=timeout, key=key, **options)
        collector = Collector()
        with self.stream(code, timeout=timeout, key=key, on_input=on_input, **options) as events:
            for event in events:
                collector.feed(event)
                if on_event is not None:
                    on_event(event)
        assert collector.result is not None
        return collector.result

    def submit(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        batch: str = "",
        **options: Unpack[ExecuteOptions],
    ) -> Execution:
        """Queue `code` and return a handle at once; executions run in the order of submission.

        `batch` names what belongs together for `stop_on_error`. There is no thread that could answer questions of the
        code meanwhile, so `on_input` is an option of `run` and `stream`. Raises as `run` does.
        """
        checked = check_execute(options)  # the asynchronous one has an option more

        def submit() -> AsyncExecution:
            return self._inner.submit(code, timeout=timeout, key=key, batch=batch, **checked)

        return Execution(self, self._portal, self._begin(submit))

    def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[ExecuteOptions],
    ) -> Events:
        """Run `code` and iterate over its events, the last of which is `Finished`.

        Use it in `with`: leaving it early cancels the execution. A reader that is slow slows the code down, once
        `buffer_bytes` are waiting. `on_input` is called in the iterating thread. Raises as `run` does.
        """
        check_callback(on_input, "on_input")

        def stream() -> AsyncExecution:
            allow = on_input is not None
            inner = self._inner.start(code, options, timeout=timeout, key=key, allow_input=allow)
            inner.claim()
            return inner

        return Events(self, self._portal, self._begin(stream), on_input)

    def run_all(
        self,
        codes: Iterable[str],
        *,
        timeout: float | None = None,
        stop_on_error: bool = True,
        **options: Unpack[CellOptions],
    ) -> list[Result]:
        """Submit all pieces of code at once and wait for their results, in order; `timeout` holds for each.

        After one that does not end in `ok` the rest is cancelled: verdict `interrupted`, code `execution_cancelled`.
        Nothing runs if one of the arguments is wrong.
        """
        checked = check_codes(codes)  # here, because a generator belongs to the calling thread
        return self._portal.call(self._inner.run_all, checked, timeout=timeout, stop_on_error=stop_on_error, **options)

    def interrupt(self) -> bool:
        """Interrupt the running execution, or the question that is answered; False if there is neither.

        Its verdict, or the error `execution_interrupted`, comes to whoever waits for it.
        """
        return self._portal.call(self._inner.interrupt)

    def cancel(self, execution_id: str) -> bool:
        """Interrupt an execution, or take it out of the queue; False if it had ended or is unknown."""
        return self._portal.call(self._inner.cancel, execution_id)

    def cancel_all(self) -> int:
        """Interrupt all that runs, and take out of the queue all that waits: how many that were. Idempotent."""
        return self._portal.call(self._inner.cancel_all)

    def restart(self) -> None:
        """Replace the worker by a new one: all state of the code is gone, what was queued gets its verdict."""
        self._portal.call(self._inner.restart)

    def info(self) -> SessionInfo:
        """State, process id, counts, memory (bytes), last heartbeat, queue, negotiated protocol."""
        return self._portal.call(self._inner.info)

    def detach(self) -> None:
        """Leave the session to itself at a node elsewhere: `client.attach(name)` finds it again.

        Executions that run go on, and wait for nobody. Raises ArgumentError where the node is in this process.
        """
        self._portal.call(self._inner.detach)

    def watch(self) -> Iterator[Event]:
        """All events of all executions, of a session that was attached to with `watch=True`, until the session ends.

        Raises as `AsyncSession.watch` does.
        """
        self._inner.check_watching()
        while events := self._portal.call(self._inner.next_watched):
            yield from events

    def close(self) -> None:
        """End the worker, its processes and files; again, or after the client's end: nothing."""
        try:
            self._portal.call(self._inner.close)
        except SessionError as error:
            if error.code != "client_closed":
                raise

    def __enter__(self) -> Self:
        self._portal.call(self._inner.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, begin: Callable[[], AsyncExecution]) -> AsyncExecution:
        """Begin an execution on the loop; what Ctrl-C overtakes is cancelled, because nobody has its handle."""
        begun: list[AsyncExecution] = []

        async def work() -> None:
            begun.append(begin())

        def abandon() -> None:
            for execution in begun:
                execution.abandon()

        try:
            self._portal.call(work)
        except BaseException:
            self._portal.soon(abandon)
            raise
        return begun[0]


def _watched(shown: Progress, on_event: OnEvent | None) -> OnEvent:
    def call(event: Event) -> None:
        shown.feed(event)
        if on_event is not None:
            on_event(event)

    return call


def _asked(shown: Progress, on_input: OnInput | None) -> OnInput | None:
    if on_input is None:
        return None

    def call(request: InputRequest) -> Json:
        with shown.asking():
            return on_input(request)

    return call

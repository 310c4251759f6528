"""What a session can be asked about code, its history and its names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from capsule.client.answers import (
    Completeness,
    Completion,
    HistoryEntry,
    Inspection,
    Namespace,
    history_entry,
    variable,
)
from capsule.client.arguments import (
    ANY,
    check_code,
    check_cursor,
    check_flag,
    check_integer,
    check_lines,
    check_text,
    check_timeout,
)
from capsule.client.loops import check_loop
from capsule.node.session import Session
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from capsule.client.inner import AnySession


class AsyncQuestions:
    """The questions. They wait for the cell that runs, so each takes a `timeout` in seconds (None: no limit).

    All raise ArgumentError for a bad argument, SessionError when the session cannot answer, and CapsuleError with code
    `request_timeout` when it does not in time.
    """

    def __init__(self, inner: AnySession) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._closed = False

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

    async def complete(self, code: str, cursor: int | None = None, *, timeout: float | None = None) -> Completion:
        """What could stand at `cursor` (an offset in characters; None: the end)."""
        reply = await self._ask("complete", {"code": check_code(code), "cursor": check_cursor(code, cursor)}, timeout)
        return Completion(reply["matches"], reply["start"], reply["end"], reply.get("metadata", {}))

    async def inspect(
        self, code: str, cursor: int | None = None, *, detail: int = 0, timeout: float | None = None
    ) -> Inspection:
        """What is known of the name at `cursor`; `detail` 1 adds its source."""
        body = {
            "code": check_code(code),
            "cursor": check_cursor(code, cursor),
            "detail": check_integer(detail, "detail", range(2)),
        }
        reply = await self._ask("inspect", body, timeout)
        return Inspection(reply["found"], reply.get("data", {}), reply.get("metadata", {}))

    async def is_complete(self, code: str, *, timeout: float | None = None) -> Completeness:
        """Whether `code` can run as it is, or needs more lines."""
        reply = await self._ask("is_complete", {"code": check_code(code)}, timeout)
        return Completeness(reply["status"], reply.get("indent", ""))

    async def history(
        self,
        n: int = 100,
        *,
        pattern: str | None = None,
        unique: bool = False,
        lines: tuple[int, int | None] | None = None,
        session: int = 0,
        output: bool = False,
        timeout: float | None = None,
    ) -> list[HistoryEntry]:
        """The last `n` cells that ran, or the last `n` that match the glob `pattern`.

        Or the cells `lines`, from a number to before another (None: to the end), of a `session`: 0 is this one, -1 the
        one before it, if both use one history file. `output`: with their values.
        """
        body: dict[str, Any] = {"output": check_flag(output, "output")}
        if lines is not None:
            body |= {"kind": "range", "session": check_integer(session, "session", ANY), **check_lines(lines)}
        elif pattern is not None:
            body |= {
                "kind": "search",
                "pattern": check_text(pattern, "pattern"),
                "unique": check_flag(unique, "unique"),
            }
        reply = await self._ask("history", body | {"n": check_integer(n, "n", range(1, 2**31))}, timeout)
        return [history_entry(*entry) for entry in reply["entries"]]

    async def namespace(self, *, timeout: float | None = None) -> Namespace:
        """What names the code has defined, described without their data."""
        reply = await self._ask("namespace_summary", {}, timeout)
        return Namespace([variable(entry) for entry in reply["entries"]], reply.get("truncated", 0))

    async def comms(self, target: str | None = None, *, timeout: float | None = None) -> dict[str, str]:
        """The comms that are open, or only those of a target: the target of each, by its id."""
        wanted = None if target is None else check_text(target, "target")
        comms: dict[str, str] = (await self._ask("comm_info", {"target": wanted}, timeout))["comms"]
        return comms

    async def debug(self, request: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """The response to a request of the Debug Adapter Protocol, which has a `seq` and a `command`.

        It does not wait for the code that runs. Events come to `on_background`. Raises CapsuleError `unsupported` where
        the environment has no debugpy.
        """
        if not isinstance(request, dict):
            raise ArgumentError("request", f"must be a dict, not {type(request).__name__}", allowed="a DAP request")
        response: dict[str, Any] = (await self._ask("debug", {"request": request}, timeout))["response"]
        return response

    def check_open(self) -> None:
        """Raise SessionError after `close()`, also the client's, and on an event loop that is not the session's."""
        if not self._closed and not isinstance(self._inner, Session):
            self._inner.check_open()  # it was taken, killed or lost: that says more
        if self._closed or self.state == "closed":
            raise SessionError("session_closed", f"the session {self.name!r} is closed")
        check_loop(self._loop, f"the session {self.name!r}")

    async def _ask(self, kind: str, body: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        self.check_open()
        return await self._inner.ask(kind, body, check_timeout(timeout))

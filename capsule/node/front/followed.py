"""How executions that others follow have ended, for what comes when it cannot be queued behind them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.node.durable.patience import until_committed
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.node.durable import Ledger
    from capsule.node.execution import ExecuteRequest
    from capsule.node.front.log import EventLog

MAX_PASSED = 1000
"""Executions that ended in `ok`, and are in no log any more, that a session remembers; the oldest are forgotten."""


class Followed:
    """Those of one session: the `logs` know what is lined up, and what its client has not dealt with.

    What is in none of them the ledger knows, whichever node has run it. Without one it is remembered here.
    """

    def __init__(self, session: str, logs: Mapping[str, EventLog], ledger: Ledger | None) -> None:
        self._session = session
        self._logs = logs
        self._ledger = ledger
        self._passed: dict[str, None] = {}

    def dropped(self, log: EventLog) -> None:
        """It is in no log any more."""
        execution = log.execution
        if self._ledger is None and execution.request.stop_on_error and _passed(log):
            self._passed[execution.id] = None
            if len(self._passed) > MAX_PASSED:
                del self._passed[next(iter(self._passed))]

    def stops(self, request: ExecuteRequest) -> bool:
        """Whether this one is not to run: what it follows has ended otherwise than in `ok`, or was never accepted.

        For a session that is not written down, or where what it follows is in a log.
        """
        log = self._logs.get(request.follows)
        if log is not None:
            return log.execution.verdict is not None and not _passed(log)
        return request.follows != "" and request.follows not in self._passed

    async def stopping(self, request: ExecuteRequest) -> bool:
        """As `stops`, for any session, when all that came before this one is lined up. Waits for a failed store.

        It waits for nothing if what it follows can still end: that may be in the same turn.
        """
        if self._ledger is None or not request.follows or request.follows in self._logs:
            return self.stops(request)
        find, follows = self._ledger.find, request.follows
        try:
            promise = await until_committed(follows, lambda: find(self._session, follows), "store_damaged")
        except CapsuleError as error:
            if error.code == "store_closed":
                raise
            return True  # it was refused, or nobody knows any more how it has ended
        return promise.state != "resolved"


def _passed(log: EventLog) -> bool:
    verdict = log.execution.verdict
    return verdict is not None and verdict.verdict == "ok"

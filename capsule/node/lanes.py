"""The line-ups of a session: that of its main shell, and one for each subshell, which runs beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.node.lineup import Lineup
from capsule_protocol.errors import SessionError
from capsule_protocol.messages.base import MAX_SUBSHELLS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from capsule.node.execution import ExecuteRequest, Execution

MOST = MAX_SUBSHELLS
"""Subshells that a session may have, those included that are closed and still busy: each is a thread."""
_NOBODY = Lineup(window=1)
"""That of one which has nothing yet."""


class Lanes(Lineup):
    """The main shell's line-up, which knows the others too. Each keeps its own order, and none waits for another.

    A subshell has one execution at its worker at a time: what is queued behind it can still be taken back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._others: dict[str, Lineup] = {}
        self._closed: set[str] = set()
        self.known = True
        """Which are open. Else what names one may be lined up until `agree` tells."""

    def __len__(self) -> int:
        return super().__len__() + sum(map(len, self._others.values()))

    @property
    def queued(self) -> int:
        """How many have not been sent."""
        return super().queued + sum(lane.queued for lane in self._others.values())

    @property
    def names(self) -> list[str]:
        """The subshells that are open, in the order in which they were opened."""
        return [name for name in self._others if name not in self._closed]

    def all(self) -> Iterator[Lineup]:
        """Each line-up, the main shell's first."""
        yield self
        yield from self._others.values()

    def open(self, name: str) -> None:
        """There is one more. Raises SessionError: `too_many_subshells`, `subshell_unknown` if it is being closed."""
        if name in self._closed:
            self._named(name)
        if len(self._others) >= MOST:
            raise SessionError("too_many_subshells", f"the session has {MOST} subshells already")
        self._lane(name)

    def agree(self, names: Sequence[str]) -> list[Execution]:
        """These are open, in this order, and no others: what was lined up for those, and has not been sent."""
        self.known = True
        before, self._others = self._others, {}
        for name in dict.fromkeys(names):
            self._others[name] = before.pop(name, Lineup(window=1))
        self._others |= before
        self._closed |= before.keys()
        left = [execution for name in before for execution in self._others[name].take_queue()]
        for name in before:
            self._forget(name)
        return left

    def close(self, name: str) -> tuple[Execution | None, list[Execution]]:
        """It takes nothing any more; what runs there, and what was queued. Raises SessionError `subshell_unknown`."""
        lane = self._named(name)
        self._closed.add(name)
        running, queued = lane.head, lane.take_queue()
        self._forget(name)
        return running, queued

    def check(self, name: str) -> None:
        """Raise SessionError `subshell_unknown` if a subshell is named that is not open."""
        if name and self.known:
            self._named(name)
        elif name and name not in self._others and len(self._others) >= MOST:
            raise SessionError("subshell_unknown", f"there is no subshell {name[:80]!r}")

    # --- as one line-up, with the executions of all ---

    def room_for(self, request: ExecuteRequest, ahead: Collection[ExecuteRequest] = ()) -> bool:
        """Whether this one may be sent at once, behind these, which are to be lined up before it."""
        same = [one for one in ahead if one.subshell == request.subshell]
        return self._of(request.subshell).has_room(same)

    def waiting_for(self, request: ExecuteRequest, ahead: Collection[ExecuteRequest] = ()) -> int:
        """The backlog where this request would be lined up."""
        same = [one for one in ahead if one.subshell == request.subshell]
        return self._of(request.subshell).backlog(same)

    def add(self, execution: Execution) -> None:
        """Line up a new one."""
        name = execution.request.subshell
        super().add(execution) if not name else self._lane(name).add(execution)

    def restore(self, execution: Execution, serial: int) -> None:
        """One that the worker has already; call it in the order of the serials."""
        name = execution.request.subshell
        super().restore(execution, serial) if not name else self._lane(name).restore(execution, serial)

    def at_worker(self) -> list[Execution]:
        """Those that the worker has, in the order in which they were sent."""
        aside = (execution for lane in self._others.values() for execution in lane.at_worker())
        return sorted((*super().at_worker(), *aside), key=lambda execution: execution.serial)

    def before(self, execution: Execution) -> list[Execution]:
        """Those that the worker has before this one in its shell."""
        name = execution.request.subshell
        return super().before(execution) if not name else self._of(name).before(execution)

    def is_due(self, execution: Execution) -> bool:
        """Whether it is the one that runs in its shell."""
        return execution is self._of(execution.request.subshell).head

    def sent(self, execution_id: str) -> Execution | None:
        """One that the worker has, by id."""
        found = super().sent(execution_id)
        if found is None and self._others:
            found = next(filter(None, (lane.sent(execution_id) for lane in self._others.values())), None)
        return found

    def by_serial(self, serial: int) -> Execution | None:
        """One that the worker has, by serial."""
        found = super().by_serial(serial)
        if found is None and self._others:
            found = next(filter(None, (lane.by_serial(serial) for lane in self._others.values())), None)
        return found

    def settle(self, execution: Execution) -> None:
        """The worker is done with it."""
        name = execution.request.subshell
        if not name:
            super().settle(execution)
        else:
            self._others[name].settle(execution)
            self._forget(name)

    def take_queued(self, execution_id: str) -> Execution | None:
        """Take one out of the queue that it is in, if it is in one."""
        found = super().take_queued(execution_id)
        if found is None and self._others:
            found = next(filter(None, (lane.take_queued(execution_id) for lane in self._others.values())), None)
        return found

    def take_batch_of(self, failed: Execution) -> list[Execution]:
        """Take what is queued in the same shell, of the same batch."""
        name, batch = failed.request.subshell, failed.request.batch
        if not name:
            return super().take_batch(batch)
        return self._others[name].take_batch(batch) if name in self._others else []

    def take_all(self) -> tuple[list[Execution], list[Execution]]:
        """Take everything, and all subshells: they are gone with the worker."""
        sent, queued = super().take_all()
        for lane in self._others.values():
            more = lane.take_all()
            sent += more[0]
            queued += more[1]
        self._others.clear()
        self._closed.clear()
        self.known = True
        return sent, queued

    # --- inside ---

    def _of(self, name: str) -> Lineup:
        return self._others.get(name, _NOBODY) if name else self

    def _lane(self, name: str) -> Lineup:
        """The line-up of this one, which may be new."""
        return self._others.setdefault(name, Lineup(window=1))

    def _named(self, name: str) -> Lineup:
        lane = self._others.get(name)
        if lane is None or name in self._closed:
            raise SessionError("subshell_unknown", f"there is no subshell {name[:80]!r}")
        return lane

    def _forget(self, name: str) -> None:
        """A closed one is kept until it is done."""
        if name in self._closed and not self._others[name]:
            del self._others[name]
            self._closed.discard(name)

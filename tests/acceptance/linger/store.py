"""A durable store as small as can be: a file of lines. Each outlives the death of the process that wrote it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from capsule import events
from capsule.config import SessionOptions
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.inheritance import Remembered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from capsule.events import Event
    from capsule.node.session import Session


class Store:
    """The lines are ["session", …], ["execution", …] and ["event", …], in the order in which they came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._known: dict[str, list[dict[str, Any]]] = {}

    def add(self, kind: str, /, **fields: Any) -> None:
        """Write a line; when this returns it is kept."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps([kind, fields]) + "\n")  # what stands before may be torn

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """What has been written whole."""
        self._read_on()
        return self._known.get(kind, [])

    def _read_on(self) -> None:
        """Read what has come since: whoever waits for a line looks again and again, and takes no time from the node."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        for line in whole.split(b"\n"):
            if line.startswith(b'["') and line.endswith(b"}]"):
                kind, fields = json.loads(line)
                self._known.setdefault(kind, []).append(fields)

    def session(self, session: Session) -> None:
        self.add("session", id=session.id, secret=session.secret.hex(), options=session.options.model_dump())

    def execution(self, name: str, request: ExecuteRequest) -> None:
        self.add("execution", id=name, request=asdict(request))

    async def follow(self, execution: Execution) -> events.Finished:
        """Write down each event, and then say that it is dealt with."""
        async for event in execution:
            self.add("event", kind=type(event).__name__, fields=asdict(event))
            execution.confirm(event.sequence)
        assert execution.verdict is not None
        return execution.verdict

    def told(self, execution: str = "x_0") -> int:
        """How many events of an execution there are."""
        return sum(line["fields"]["execution_id"] == execution for line in self.lines("event"))

    def events(self, execution: str = "x_0") -> list[Event]:
        """Those of one execution, or of the first."""
        found = []
        for line in self.lines("event"):
            fields = dict(line["fields"])
            if fields["execution_id"] == execution:
                if fields.get("error"):
                    fields["error"] = events.ErrorInfo(**fields["error"])
                found.append(getattr(events, line["kind"])(**fields))
        return found

    def remembered(self) -> list[Remembered]:
        """The executions without a verdict."""
        found = []
        for line in self.lines("execution"):
            told = self.events(line["id"])
            if not (told and isinstance(told[-1], events.Finished)):
                found.append(self._remembered(line, told))
        return found

    def options(self) -> SessionOptions:
        return SessionOptions(**self.lines("session")[0]["options"])

    def secret(self) -> bytes:
        return bytes.fromhex(self.lines("session")[0]["secret"])

    def _remembered(self, line: dict[str, Any], told: list[Event]) -> Remembered:
        async def after(number: int) -> Sequence[Event]:
            return told[number:]

        return Remembered(line["id"], ExecuteRequest(**line["request"]), len(told), after)

"""The session of an execution that is tested alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.config import SessionOptions

if TYPE_CHECKING:
    from capsule.events import Event
    from capsule.node.asking import Answer
    from capsule.node.execution import Execution


class Host:
    """A session that wants to know nothing."""

    options = SessionOptions()
    epoch = 1

    def number_of(self, _execution: Execution) -> int:
        return 0

    def on_full(self, execution: Execution) -> None: ...

    def on_room(self, execution: Execution) -> None: ...

    def on_started(self, execution: Execution) -> None: ...

    def on_late(self, event: Event) -> None: ...

    def on_released(self) -> None: ...

    def send_input(self, request: str, answer: Answer) -> None: ...

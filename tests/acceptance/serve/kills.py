"""Client processes that are killed and started again, at steps that a seed decides, and what the last one must see."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from capsule import Client, Display, Finished, InputRequest, Output
from capsule.events import ErrorInfo, Gap, Started, Status

if TYPE_CHECKING:
    from capsule.events import Event
    from tests.acceptance.serve.support import Served

ROOT = Path(__file__).parents[3]
SESSION = "victim"
CODE = """
import sys
runs = globals().get("runs", 0) + 1
for number in range(20):
    print("line", number, "x" * 300, flush=True)
    if number % 5 == 0:
        print("oops", number, file=sys.stderr, flush=True)
        display(number)
name = input("who? ")
print(name)
runs
"""
_KINDS = (Display, ErrorInfo, Finished, Gap, InputRequest, Output, Started, Status)


class Kills:
    """Rounds with one session of a service; each ends with a client that lives."""

    def __init__(self, served: Served, place: Path, seed: int) -> None:
        self._served = served
        self._file = place / "events"
        self._chance = random.Random(seed)
        self._round = 0
        self._steps = 0
        self.killed = 0
        self._victims = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.serve.victims"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with Client(served.address) as client:
            client.session(name=SESSION).detach()

    def run(self, rounds: int) -> None:
        """First undisturbed, then with up to three kills a round."""
        reference = self._live()
        self._steps = int(Path(f"{self._file}.steps").read_text())
        for _ in range(rounds):
            self._round += 1
            seen = [self._die() for _ in range(self._chance.randint(1, 3))]
            last = self._live()
            for lines in seen:
                assert lines == last[: len(lines)]
            assert self._live() == last  # somebody whom nothing has disturbed
            assert _meaning(last) == (*_meaning(reference)[:-1], str(self._round + 1))

    def _die(self) -> list[str]:
        self.killed += self._order(self._chance.randint(1, self._steps)) != 0
        return self._lines()

    def _live(self) -> list[str]:
        assert self._order(0) == 0
        return self._lines()

    def _order(self, fatal: int) -> int:
        self._file.unlink(missing_ok=True)
        order = {
            "address": self._served.address,
            "session": SESSION,
            "key": f"round {self._round}",
            "code": CODE,
            "file": str(self._file),
            "fatal": fatal,
        }
        assert self._victims.stdin is not None
        assert self._victims.stdout is not None
        self._victims.stdin.write(json.dumps(order) + "\n")
        self._victims.stdin.flush()
        return int(self._victims.stdout.readline())

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._victims.communicate()
        with Client(self._served.address) as client:
            client.attach(SESSION).close()


def _meaning(lines: list[str]) -> tuple[object, ...]:
    """What does not depend on how the text was cut: texts, the other events, and the value last."""
    events: list[Event] = [eval(line, {kind.__name__: kind for kind in _KINDS}) for line in lines]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    texts = {"stdout": "", "stderr": ""}
    others: list[object] = []
    for event in events:
        if isinstance(event, Output):
            texts[event.stream] += event.text
        else:
            others.append((type(event), getattr(event, "data", None)) if isinstance(event, Display) else type(event))
    assert isinstance(events[-1], Finished)
    return texts["stdout"], texts["stderr"], others, events[-1].verdict, events[-1].text

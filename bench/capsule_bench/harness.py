"""Runs an area: one fresh process for each contender and round, contenders taking turns."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_bench import figures
from capsule_bench.child import Job
from capsule_bench.machine import commit, machine
from capsule_bench.model import Area, Contender, Failure, Load, Measure, Memory, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 5
QUICK_ROUNDS = 1


@dataclass(slots=True)
class Collected:
    """What the processes of one contender have said about one measure so far."""

    rounds: list[list[float]] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    versions: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    error: Failure | None = None

    def add(self, answer: dict[str, object]) -> None:
        """Take in the answer of one process."""
        match answer:
            case {"error": {"name": str(name), "message": str(message)}}:
                self.error = Failure(name, message)
            case {
                "measured": {"values": list(values), "memory": dict(memory), "repeated": int(repeated)},
                "versions": dict(versions),
            }:
                self.rounds.append([float(value) for value in values])
                self.memory = _largest(self.memory, Memory(**memory))
                self.versions = versions
                self.repeated += repeated
            case _:
                self.error = Failure("WrongResultError", f"not an answer: {answer!r:.200}")


def run_area(
    area: Area, *, quick: bool = False, rounds: int | None = None, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Result]:
    """Measure everything in the area; yields a result as soon as all rounds of its measure are done.

    A contender that fails gets a result with the error, and no further rounds of that measure.
    """
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    blank = Result(
        area=area.name,
        measure="",
        contender="",
        unit="",
        run=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=quick,
        machine=machine(),
        commit=commit(),
        python=platform.python_version(),
    )
    for measure in area.measures:
        collected = _take_turns(area, measure, measure.quick if quick else measure.full, rounds, tell)
        for name, data in collected.items():
            yield _result(replace(blank, measure=measure.name, contender=name, unit=measure.unit), measure, data)


def _take_turns(
    area: Area, measure: Measure, load: Load, rounds: int, tell: Callable[[str], None]
) -> dict[str, Collected]:
    contenders = area.contenders[:1] if measure.alone else area.contenders
    collected = {contender.name: Collected() for contender in contenders}
    for number in range(rounds):
        # Each round begins with another contender: none is always the one that finds the machine warm.
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            data = collected[contender.name]
            if data.error is not None:
                continue
            data.add(measure_once(contender, measure.name, load))
            said = f"{data.error.name}: {data.error.message}" if data.error else _short(data, measure.unit)
            tell(f"{measure.title} | {contender.name} | round {number + 1} of {rounds} | {said}")
    return collected


def measure_once(contender: Contender, measure: str, load: Load) -> dict[str, object]:
    """The answer of one fresh process, or an `error` in its place if it crashed or took too long."""
    with tempfile.TemporaryDirectory(prefix="capsule-bench-") as folder:
        answer, said = Path(folder, "answer.json"), Path(folder, "said.txt")
        job = Job(contender.module, measure, load, contender.packages, str(answer))
        with said.open("wb") as sink:
            # To a file and not a pipe: a grandchild that outlives its parent could keep a pipe open for ever.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "capsule_bench.child", job.as_json()],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=_environment(),
                start_new_session=True,
            )
            try:
                code = process.wait(load.seconds)
            except subprocess.TimeoutExpired:
                return _error("TimeoutExpired", f"took longer than {load.seconds:g} s")
            finally:
                _end(process)
        if code != 0 or not answer.exists():
            return _error("Crashed", f"exit code {code}: {said.read_text(errors='replace')[-500:].strip()}")
        read: dict[str, object] = json.loads(answer.read_text())
        return read


def _environment() -> dict[str, str]:
    """The caller's, without what changes how an interpreter works (unbuffered output, no caches, development mode)."""
    return {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or not name.startswith("PYTHON")}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process's group while the process, even as a zombie, still holds the group's number."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _result(blank: Result, measure: Measure, data: Collected) -> Result:
    done = replace(blank, versions=data.versions, memory=data.memory, repeated=data.repeated, error=data.error)
    if data.error is not None:
        return done
    values = [value for each in data.rounds for value in each]
    return replace(
        done,
        n=len(values),
        min=min(values),
        median=figures.median(values),
        p95=figures.percentile(values, 0.95, higher_is_better=measure.higher_is_better),
        p99=figures.p99(values, higher_is_better=measure.higher_is_better),
        rounds=[figures.median(each) for each in data.rounds],
    )


def _largest(one: Memory, other: Memory) -> Memory:
    return Memory(
        max(one.rss, other.rss),
        max(one.rss_children, other.rss_children),
        max(one.pss_children, other.pss_children),
    )


def _short(data: Collected, unit: str) -> str:
    repeated = f", {data.repeated} repeated" if data.repeated else ""
    return f"{figures.median(data.rounds[-1]):,.4g} {unit}{repeated}"


def _error(name: str, message: str) -> dict[str, object]:
    return {"error": {"name": name, "message": message}}

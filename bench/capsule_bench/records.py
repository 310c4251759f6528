"""Results as JSON lines: `bench/results/<area>.jsonl` grows by one line for each result."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from capsule_bench.model import Failure, Memory, Result

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def to_line(result: Result) -> str:
    """The result as one line of JSON."""
    return json.dumps(asdict(result), ensure_ascii=False)


def from_line(line: str) -> Result:
    """The opposite of `to_line`; raises ValueError for what is no result."""
    try:
        fields = json.loads(line)
        error = fields.pop("error")
        memory = Memory(**fields.pop("memory"))
        return Result(**fields, memory=memory, error=Failure(**error) if error else None)
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as problem:
        raise ValueError(f"not a result: {line[:80]!r}") from problem


def append(path: Path, results: Iterable[Result]) -> None:
    """Add the results to the end of the file, which is created with its folder where need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(to_line(result) + "\n" for result in results)


def read(path: Path) -> list[Result]:
    """All results of a file, oldest first; raises ValueError with the number of a line that is none."""
    results = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            results.append(from_line(line))
        except ValueError as problem:
            raise ValueError(f"{path}, line {number}: {problem}") from problem
    return results


def latest(results: Iterable[Result]) -> list[Result]:
    """For each area and measure the results of its newest run, in the order of the file.

    By measure and not by area: a run may have been of some measures only.
    """
    results = list(results)
    newest: dict[tuple[str, str], str] = {}
    for result in results:
        key = (result.area, result.measure)
        newest[key] = max(newest.get(key, ""), result.run)
    return [result for result in results if newest[result.area, result.measure] == result.run]

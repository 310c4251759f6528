"""Results as a Markdown table: the ratio first, then the figures, what they must be, and whether they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_bench.figures import times_better
from capsule_bench.model import Area, Measure, Must, Result

if TYPE_CHECKING:
    from collections.abc import Iterable

Row = dict[str, Result]
YARDSTICK = {"python_ns", "wake_us", "fork_ms", "sync_ms"}


def markdown(area: Area, results: Iterable[Result]) -> str:
    """The table of one area. Medians, with p99 in brackets; a measure without any result has no row."""
    by_measure: dict[str, Row] = {}
    results = [result for result in results if result.area == area.name]
    for result in results:
        by_measure.setdefault(result.measure, {})[result.contender] = result
    names = [contender.name for contender in area.contenders]
    lines = [
        _line(["ratio", area.title, *names, "must", ""]),
        _line(["---:", "---", *("---:" for _ in names), "---", "---"]),
    ]
    lines += [
        _line(_cells(measure, by_measure[measure.name], names))
        for measure in area.measures
        if measure.name in by_measure
    ]
    return "\n".join([*lines, "", *_origins(results)]) + "\n"


def verdict(measure: Measure, own: Result | None, other: Result | None) -> str:
    """`pass`, `fail`, `error` (ours failed), `not measured`, `no reference` (nothing to compare with); "": no must."""
    must = measure.must
    if must == Must():
        return ""
    if own is None:
        return "not measured"
    if own.median is None:
        return "error"
    wanted = ((own.median, must.median), (own.p95, must.p95), (own.p99, must.p99))
    if not all(_reaches(value, limit, measure) for value, limit in wanted):
        return "fail"
    if must.ratio is None:
        return "pass"
    ratio = _ratio(measure, own, other)
    if ratio is None:
        return "no reference"
    return "pass" if ratio >= must.ratio else "fail"


def must_text(measure: Measure, reference: str) -> str:
    """What the measure must be, in words: `≤ 0.55 ms, ≥ 5x ipykernel`."""
    parts = []
    sign = "≥" if measure.higher_is_better else "≤"
    if measure.must.median is not None:
        parts.append(f"{sign} {number(measure.must.median)} {measure.unit}")
    if measure.must.p95 is not None:
        parts.append(f"p95 {sign} {number(measure.must.p95)} {measure.unit}")
    if measure.must.p99 is not None:
        parts.append(f"p99 {sign} {number(measure.must.p99)} {measure.unit}")
    if measure.must.ratio is not None:
        parts.append(f"≥ {number(measure.must.ratio)}x {reference}")
    return ", ".join(parts)


def number(value: float) -> str:
    """Three significant digits, thousands apart: `0.412`, `2.6`, `512,000`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def _cells(measure: Measure, row: Row, names: list[str]) -> list[str]:
    own = row.get(names[0])
    other = row.get(names[1]) if len(names) > 1 else None
    ratio = _ratio(measure, own, other)
    return [
        "" if ratio is None else f"{number(ratio)}x",
        measure.title,
        *(_figure(row.get(name)) for name in names),
        must_text(measure, names[1] if len(names) > 1 else ""),
        verdict(measure, own, other),
    ]


def _figure(result: Result | None) -> str:
    if result is None:
        return ""
    if result.error is not None:
        return f"{result.error.name}: {result.error.message}"[:120]
    if result.median is None or result.p99 is None:
        return ""
    repeated = f", {result.repeated} repeated" if result.repeated else ""
    return f"{number(result.median)} {result.unit} ({number(result.p99)}){repeated}"


def _ratio(measure: Measure, own: Result | None, other: Result | None) -> float | None:
    if own is None or other is None or own.median is None or other.median is None:
        return None
    return times_better(own.median, other.median, higher_is_better=measure.higher_is_better)


def _reaches(value: float | None, must: float | None, measure: Measure) -> bool:
    if must is None:
        return True
    if value is None:
        return False
    return value >= must if measure.higher_is_better else value <= must


def _origins(results: list[Result]) -> list[str]:
    """One line for each run that the table's figures come from."""
    seen = {}
    for result in results:
        about = result.machine
        seen[result.run] = (
            f"{result.run}{' (quick)' if result.quick else ''}: {about.get('cpu')}, {about.get('cores')} cores, "
            f"load {about.get('load')}, {about.get('system')}, Python {result.python}, commit {result.commit or '?'}"
            + _yardstick(about)
        )
    return list(seen.values())


def _yardstick(about: dict[str, str | int | float]) -> str:
    """How fast the machine was; runs of earlier versions do not say."""
    if not about.keys() >= YARDSTICK:
        return ""
    turn, wake, fork, sync = (number(float(about[name])) for name in ("python_ns", "wake_us", "fork_ms", "sync_ms"))
    moves = f"a turn of an empty loop {turn} ns, a byte there and back {wake} µs"
    return f"; {moves}, a fork {fork} ms, a synced page {sync} ms"


def _line(cells: list[str]) -> str:
    # A bar or a line break in an error's text would break the table.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

"""The figures that stand for a list of samples."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def median(values: Sequence[float]) -> float:
    """The middle value; raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return float(statistics.median(values))


def p99(values: Sequence[float], *, higher_is_better: bool = False) -> float:
    """A value that occurred, and than which at most 1 in 100 is worse (nearest rank)."""
    return percentile(values, 0.99, higher_is_better=higher_is_better)


def percentile(values: Sequence[float], share: float, *, higher_is_better: bool = False) -> float:
    """A value that occurred, and than which this share of all is at least as good (nearest rank)."""
    if not values:
        raise ValueError("no values")
    best_first = sorted(values, reverse=higher_is_better)
    return float(best_first[math.ceil(share * len(best_first)) - 1])


def times_better(own: float, other: float, *, higher_is_better: bool) -> float:
    """By what factor `own` beats `other`: 2.0 is twice as fast, 0.5 half as fast."""
    good, bad = (own, other) if higher_is_better else (other, own)
    return good / bad if bad else math.inf


def milliseconds(seconds: float) -> float:
    """A time as a sample in ms."""
    return seconds * 1e3


def per_second(size: int) -> Callable[[float], float]:
    """Makes of a time a sample of how many of `size` things went through in a second."""
    return lambda seconds: size / seconds

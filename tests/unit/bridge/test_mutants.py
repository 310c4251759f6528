"""The tests of the stores are tested: each mistake of `mutants` is found by all the checks that are meant to see it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from capsule_bridge.sqlite import writer
from capsule_bridge.sqlite.faults import FaultPoint
from tests.unit.bridge.contract import StoreContract
from tests.unit.bridge.kills import kill_rounds
from tests.unit.bridge.linear import explained
from tests.unit.bridge.mutants import MUTANTS
from tests.unit.bridge.power import power_rounds
from tests.unit.bridge.support import open_kind
from tests.unit.bridge.test_linear import recorded
from tests.unit.bridge.test_model import FileComparison

HISTORIES = 100
KILLS = 8
CUTS = 20
EXAMPLES = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)

Check: TypeAlias = Callable[[Path, str], bool]
"""Whether a store in this folder passes. The name is that of the mutant, for a check that starts another process."""


def contract(folder: Path, _: str) -> bool:
    """Each test of the contract, until one fails."""

    async def passes(call: Callable[[Any], Awaitable[None]], number: int) -> bool:
        store = open_kind("sqlite-process", folder / f"{number}")
        try:
            await call(store)
        except (Exception, pytest.fail.Exception):
            return False
        finally:
            await store.close()
        return True

    return all(asyncio.run(passes(call, number)) for number, call in enumerate(_calls_of_the_contract()))


def _calls_of_the_contract() -> Iterator[Callable[[Any], Awaitable[None]]]:
    for name, test in inspect.getmembers(StoreContract(), inspect.ismethod):
        marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        parameters = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks]
        for chosen in product(*parameters) if name.startswith("test_") else ():
            yield partial(test, **dict(chosen))


def model(_folder: Path, _: str) -> bool:
    """Random sequences of calls."""
    try:
        run_state_machine_as_test(FileComparison, settings=EXAMPLES)
    except AssertionError:
        return False
    return True


def linear(folder: Path, _: str) -> bool:
    """Histories of concurrent calls."""

    async def passes() -> bool:
        store, chance = open_kind("sqlite-process", folder), Random(5)
        try:
            histories = await asyncio.gather(*(recorded(store, f"p{n}", chance) for n in range(HISTORIES)))
        finally:
            await store.close()
        return all(map(explained, histories))

    return asyncio.run(passes())


def kill(folder: Path, mutant: str) -> bool:
    """Kills of the process that writes."""
    points: tuple[FaultPoint, ...] = ("before_commit", "answered")
    return not asyncio.run(kill_rounds(folder / "store.db", KILLS, 1, mutant, points)).wrong


def power(folder: Path, _: str) -> bool:
    """Cuts of the power."""
    return not asyncio.run(power_rounds(folder, CUTS, seed=1)).wrong


FOUND_BY: dict[str, tuple[Check, ...]] = {
    "acknowledges_before_it_commits": (kill, power),
    "knows_no_fingerprint": (contract, model),
    "knows_no_fence": (contract, model),
    "reads_no_time_out": (contract, model),
    "counts_events_in_memory": (model,),
    "leaves_children": (contract, model, kill),
    "lets_the_last_verdict_win": (contract, model, linear),
    "takes_each_start_for_the_first": (contract, model, linear, kill),
    "reads_from_a_cache": (contract, model, linear),
    "names_a_file_before_it_is_synced": (power,),
}
PAIRS = [(mutant, check) for mutant, checks in FOUND_BY.items() for check in checks]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is copied into the database often enough for something to happen there."""
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 200_000)


@pytest.mark.parametrize(("mutant", "check"), PAIRS, ids=[f"{check.__name__}-{mutant}" for mutant, check in PAIRS])
def test_a_mistake_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str, check: Check) -> None:
    MUTANTS[mutant](monkeypatch)
    assert not check(tmp_path, mutant)


@pytest.mark.parametrize("check", [contract, linear])
def test_the_store_as_it_is_passes(tmp_path: Path, check: Check) -> None:
    """The other checks are tests by themselves."""
    assert check(tmp_path, "")


def test_every_mistake_is_looked_for() -> None:
    assert FOUND_BY.keys() == MUTANTS.keys()

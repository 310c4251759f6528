"""The bounds on sources, inputs and outputs."""

from __future__ import annotations

import linecache

from capsule_kernels.caches import InputCache, SourceCache
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session

BOUND = 5
CELLS = 30


def bounded() -> Session:
    session = Session()
    shell = session.python
    session.engine.runner.bound(SourceCache(shell, BOUND), InputCache(shell, BOUND))
    return session


@alone
def test_only_the_last_sources_are_kept() -> None:
    session = bounded()
    before = len(linecache.cache)
    for number in range(CELLS):
        session.value(f"def f{number}(): raise LookupError('here')", name=f"cell-{number}")
    compiler = session.python.compile
    ours = [name for name in linecache.cache if name.startswith("<ipython-input")]
    assert len(ours) == BOUND
    assert len(linecache.cache) <= before + BOUND
    assert len(compiler._filename_map) == BOUND
    assert len(compiler.names) == BOUND
    assert len(getattr(linecache, "_interactive_cache", {})) <= BOUND


@alone
def test_tracebacks_show_what_is_kept_and_do_without_what_is_not() -> None:
    session = bounded()
    for number in range(CELLS):
        session.value(f"def f{number}(): raise LookupError('here {number}')")
    assert "raise LookupError('here 29')" in "\n".join(session.error("f29()")["traceback"])
    old = session.error("f0()")
    assert old["message"] == "here 0"
    assert old["traceback"]


@alone
def test_only_the_last_inputs_and_outputs_are_kept_under_their_numbers() -> None:
    session = bounded()
    for number in range(1, CELLS + 1):
        session.value(f"'{number}'")
    names, history = session.python.user_ns, session.python.history_manager
    kept = list(range(CELLS - BOUND + 1, CELLS + 1))
    assert [number for number, source in enumerate(names["In"]) if source] == kept
    assert names["In"][CELLS] == f"'{CELLS}'"
    assert sorted(int(name[2:]) for name in names if name.startswith("_i") and name[2:].isdigit()) == kept
    assert sorted(history.output_hist_reprs) == kept
    assert sorted(history.outputs) == kept
    assert (names["_i"], names["_ii"], names["_iii"]) == (f"'{CELLS - 1}'", f"'{CELLS - 2}'", f"'{CELLS - 3}'")


@alone
def test_a_bound_of_nothing_keeps_the_running_cell() -> None:
    session = Session()
    shell = session.python
    session.engine.runner.bound(SourceCache(shell, 0), InputCache(shell, -5))
    assert "1 / 0" in "\n".join(session.error("1 / 0")["traceback"])
    assert session.value("In[2]") == "'In[2]'"

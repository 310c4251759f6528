"""What a zygote runs beforehand, for its forks."""

from __future__ import annotations

import dis
import logging
import random
import sys
import threading
from typing import Any

from capsule_kernels.rehearsal import forget_classes, rehearse
from tests.unit.kernels.alone import alone


def rewritten(function: Any) -> set[str]:
    """The instructions that Python has put in the place of those that were compiled."""
    return {step.opname for step in dis.get_instructions(function, adaptive=True)} - set(dis.opmap)


@alone
def test_python_has_rewritten_what_a_fork_runs_first() -> None:
    """Where it had not, each fork would do it, in a page that it shares until then."""
    function = threading._after_fork  # type: ignore[attr-defined]
    before = rewritten(function)
    rehearse()
    assert rewritten(function) - before


@alone
def test_the_process_is_as_it_was() -> None:
    rehearse()
    assert threading.enumerate() == [threading.main_thread()]
    thread = threading.Thread(target=logging.warning, args=("heard",))
    thread.start()
    thread.join()
    assert not thread.is_alive()
    assert random.random() != random.random()


@alone
def test_what_was_looked_for_in_classes_is_forgotten() -> None:
    """Since Python 3.12 nothing is counted that could tell of it."""
    name = sys.intern("no class has this")
    before = sys.getrefcount(name)
    getattr(object, name, None)
    if sys.version_info < (3, 12):
        assert sys.getrefcount(name) > before
    forget_classes()
    assert sys.getrefcount(name) == before

"""The parts of a worker, and what its zygote has done of their work."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from capsule_kernels import wiring, worker
from capsule_kernels.calls import Calls
from capsule_kernels.capture import Outlet
from capsule_kernels.debugging import Debugging
from capsule_kernels.interrupts import Interrupts
from capsule_kernels.link import Link
from capsule_kernels.prepared import Prepared
from capsule_kernels.publisher import Publisher
from capsule_kernels.rehearsal import forget_classes
from capsule_kernels.stdin import Stdin
from capsule_kernels.warming import Warming
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session


def shell() -> Any:
    assert worker._shell is not None
    return worker._shell


def process() -> list[Any]:
    """What in a process the parts would change, if they were put in their places."""
    return [
        sorted(one.name for one in Path("/proc/self/fd").iterdir()),
        threading.enumerate(),
        [signal.getsignal(number) for number in signal.valid_signals()],
        signal.signal,
        *(sys.stdin, sys.stdout, sys.stderr, sys.displayhook, sys.unraisablehook),
        *(os.write, input, getpass.getpass),
        *(shell().subshells, shell().display_pub.publisher, shell().kernel.comm_manager),
    ]


def session() -> list[Any]:
    """What a session has from its shell."""
    return [dict(shell().user_ns), shell().execution_count, shell().history_manager.input_hist_raw[:]]


@alone
def test_what_is_made_for_nobody_changes_nothing_in_the_process() -> None:
    before = process(), session()
    wiring.rehearse_cells(shell())
    wiring.rehearse(Prepared(shell(), Interrupts()))
    assert (process(), session()) == before


@alone
def test_cells_are_rehearsed_to_their_good_end() -> None:
    shell().last_execution_succeeded = False
    wiring.rehearse_cells(shell())
    assert shell().last_execution_succeeded


@alone
def test_a_worker_s_parts_keep_no_names_that_its_zygote_has_not_kept() -> None:
    """To keep a name writes to it, and each name is in a page that may have been shared.

    Not those of the standard input, which is made of one of C's types: each such object keeps them by itself.
    """
    names = sorted(_attributes(Calls, Debugging, Link, Outlet, Publisher, Warming) - _attributes(Stdin))
    assert len(names) > 30
    prepared = Prepared(shell(), Interrupts(wiring._page()))
    wiring.rehearse(prepared)
    before = _counts(names)
    engine = wiring._for_nobody(prepared, wiring._page())
    assert _counts(names) == before
    del engine


def _counts(names: list[str]) -> list[int]:
    """How often they are kept by objects: what keeps them in Python's own table, and for how long, is chance."""
    forget_classes()
    return [sys.getrefcount(name) for name in names]


def _attributes(*kinds: Any) -> set[str]:
    """What their objects are made with."""
    return {name for kind in kinds for name in kind.__init__.__code__.co_names if name.startswith("_")}


@alone
def test_nothing_is_freed_that_a_worker_puts_its_own_in_the_place_of() -> None:
    """Who frees a function writes to all of its names and constants."""
    replaced = [weakref.ref(one) for one in (vars(getpass)["unix_getpass"], sys.stdin, sys.stdout)]
    rig = Session()
    assert all(one() is not None for one in replaced)
    assert sys.stdin is rig.engine.stdin
    rig.close()

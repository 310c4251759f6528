"""Interrupts of code in threads, and what is kept apart for a subshell."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from capsule_kernels import figures, sleeping
from capsule_kernels.aside import AsideInterrupts
from tests.unit.kernels.alone import alone

PATIENCE = 30.0


def interrupted(work: Callable[[threading.Event], object]) -> tuple[list[str], AsideInterrupts]:
    """Run work in a thread, and interrupt it until that takes when it says so; what came of it, step by step."""
    interrupts, begun = AsideInterrupts(), threading.Event()
    steps: list[str] = []

    def run() -> None:
        sleeping.sleep_by(interrupts)
        try:
            interrupts.arm(5)
            work(begun)
            steps.append("went on")
        except KeyboardInterrupt:
            steps.append("interrupted")
        finally:
            interrupts.disarm()
        steps.append("disarmed")

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(PATIENCE)
    while not interrupts.interrupt(5):
        thread.join(0.001)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return steps, interrupts


def spin(begun: threading.Event) -> None:
    begun.set()
    while True:
        pass


def sleep(begun: threading.Event) -> None:
    begun.set()
    time.sleep(3600)


@pytest.mark.parametrize("work", ["spin", "sleep"])
@alone
def test_code_in_a_thread_is_interrupted(work: str) -> None:
    sleeping.install()
    steps, interrupts = interrupted({"spin": spin, "sleep": sleep}[work])
    assert steps == ["interrupted", "disarmed"]
    assert interrupts.asked


@alone
def test_an_interrupt_that_comes_before_the_code_begins_is_for_it_and_for_nothing_else() -> None:
    interrupts = AsideInterrupts()
    assert interrupts.interrupt(7)
    interrupts.arm(6)
    interrupts.disarm()
    with pytest.raises(KeyboardInterrupt):
        interrupts.arm(7)
    interrupts.disarm()
    interrupts.arm(8)
    assert not interrupts.asked


@alone
def test_nothing_is_raised_in_the_midst_of_a_step_of_the_workers() -> None:
    from tests.unit.kernels.rig import Pipes

    pipes = Pipes(capacity=4096)
    pipes.take_descriptors()
    interrupts, written = AsideInterrupts(), threading.Event()

    def run() -> None:
        interrupts.arm(3)
        written.set()
        pipes.outlet.write(0, b"x" * 100_000)  # more than the pipe holds: it waits in there
        interrupts.disarm()

    thread = threading.Thread(target=run)
    thread.start()
    assert written.wait(PATIENCE)
    while not _inside(thread, "_stall"):
        pass
    assert not interrupts.interrupt(3)
    while thread.is_alive():
        pipes.raw(0)
    assert not interrupts.asked


def _inside(thread: threading.Thread, name: str) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


@alone
def test_sleep_is_the_systems_everywhere_else() -> None:
    plain = getattr(time.sleep, "__wrapped__", time.sleep)  # a worker has it from before its first code
    sleeping.install()
    installed = time.sleep
    sleeping.install()
    assert time.sleep is installed
    assert installed is not plain
    begin = time.monotonic()
    time.sleep(0.02)
    assert time.monotonic() - begin >= 0.02
    for wrong in (-1, "1", None):
        with pytest.raises((ValueError, TypeError)) as caught:
            time.sleep(wrong)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises(type(caught.value), match=str(caught.value)):
            plain(wrong)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("first", [True, False])
@alone
def test_figures_are_kept_apart_whenever_matplotlib_is_imported(first: bool) -> None:
    if first:
        import matplotlib.pyplot as plt
    figures.install()
    figures.install()
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    plt.figure(3)
    found: list[Any] = []

    def aside() -> None:
        figures.keep_apart_here()
        found.append(plt.get_fignums())
        plt.plot([1])
        plt.figure(7)
        found.append((plt.get_fignums(), plt.gcf().number))
        plt.close(1)
        found.append((plt.get_fignums(), plt.fignum_exists(3)))
        plt.close("all")

    thread = threading.Thread(target=aside)
    thread.start()
    thread.join()
    assert found == [[], ([1, 7], 7), ([7], False)]
    assert plt.get_fignums() == [3]
    assert plt.gcf().number == 3

"""Interrupts: whom they reach, what waits, and what user code's own handlers may do."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import pytest

from capsule_kernels import capture, link
from capsule_kernels.handlers import Guards
from capsule_protocol.envelope import Envelope
from capsule_protocol.page import INTERRUPT_SIGNAL, TARGET, target_of
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Pipes, Session

SERIAL = 7
ASKED = target_of("m_1")


def installed() -> Pipes:
    pipes = Pipes(2**20)
    pipes.interrupts.install()
    return pipes


@alone
def test_the_armed_cell_is_interrupted() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    assert not pipes.interrupts.asked
    with pytest.raises(KeyboardInterrupt):
        pipes.interrupt(SERIAL)
    assert pipes.interrupts.asked


@pytest.mark.parametrize("armed", [0, SERIAL])
@alone
def test_a_signal_for_another_execution_does_nothing(armed: int) -> None:
    pipes = installed()
    if armed:
        pipes.interrupts.arm(armed)
    pipes.interrupt(SERIAL + 1)
    assert not pipes.interrupts.asked
    assert not pipes.interrupts.pending


@alone
def test_a_signal_after_the_cell_does_nothing() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    pipes.interrupts.disarm()
    pipes.interrupt(SERIAL)
    assert not pipes.interrupts.asked


@alone
def test_a_cell_that_was_interrupted_before_its_start_ends_at_its_start() -> None:
    pipes = installed()
    pipes.interrupt(SERIAL)
    with pytest.raises(KeyboardInterrupt):
        pipes.interrupts.arm(SERIAL)


@alone
def test_the_next_cell_forgets_the_interrupt_of_the_last_one() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    with pytest.raises(KeyboardInterrupt):
        pipes.interrupt(SERIAL)
    pipes.interrupts.disarm()
    pipes.interrupts.arm(SERIAL + 1)
    assert not pipes.interrupts.asked


@pytest.mark.parametrize("target", [ASKED, SERIAL + 1])
@alone
def test_a_question_is_interrupted_for_itself_and_for_the_code_that_waits_behind_it(target: int) -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    pipes.interrupts.disarm()
    pipes.interrupts.arm(ASKED)
    with pytest.raises(KeyboardInterrupt):
        pipes.interrupt(target)
    assert pipes.interrupts.asked


@pytest.mark.parametrize("target", [target_of("m_2"), SERIAL])
@alone
def test_a_question_is_not_interrupted_for_another_one_or_for_code_before_it(target: int) -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    pipes.interrupts.disarm()
    pipes.interrupts.arm(ASKED)
    pipes.interrupt(target)
    assert not pipes.interrupts.asked


@alone
def test_a_question_is_not_interrupted_for_code_before_it_that_was_cancelled() -> None:
    """The signal for it comes late: the node had not heard yet that it never began."""
    session = Session()
    session.engine.cancelled.add("x_1")
    session.engine._execute(Envelope("execute", {"code": "1"}, execution="x_1", sequence=SERIAL))
    session.interrupts.arm(ASKED)
    session.interrupt(SERIAL)
    assert not session.interrupts.asked
    session.interrupts.disarm()
    session.close()


@alone
def test_a_question_that_has_ended_leaves_no_interrupt_to_the_code_behind_it() -> None:
    pipes = installed()
    pipes.interrupts.arm(ASKED)
    pipes.interrupts.disarm()
    pipes.interrupt(ASKED)
    pipes.interrupts.arm(SERIAL)
    pipes.interrupt(ASKED)
    assert not pipes.interrupts.asked


@alone
def test_who_swallows_an_interrupt_is_told_again_until_its_end() -> None:
    pipes = installed()
    pipes.interrupts.arm(ASKED)
    pipes.interrupts.insist()
    with pytest.raises(KeyboardInterrupt):
        pipes.interrupt(ASKED)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipes.interrupts.insist()
    thread = threading.Thread(target=pipes.interrupts.insist)
    thread.start()
    thread.join()
    pipes.interrupts.disarm()
    pipes.interrupts.insist()


@alone
def test_what_a_handler_raises_within_a_question_is_shown_and_ends_nothing() -> None:
    shown: list[str] = []
    pipes = guarded(shown)
    signal.signal(signal.SIGALRM, raise_alarm)
    pipes.interrupts.arm(ASKED)
    os.kill(os.getpid(), signal.SIGALRM)
    assert shown == ["Alarm()"]


@pytest.mark.parametrize("armed", [False, True])
@alone
def test_a_foreign_sigint_means_the_cell_that_runs(armed: bool) -> None:
    pipes = installed()
    if not armed:
        os.kill(os.getpid(), signal.SIGINT)
        return
    pipes.interrupts.arm(SERIAL)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@alone
def test_a_second_interrupt_reaches_code_that_caught_the_first_one() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    caught = 0
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pipes.interrupt(SERIAL)
        caught += 1
    assert caught == 3


@alone
def test_while_the_task_of_a_cell_waits_an_interrupt_cancels_it() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    cancelled: list[int] = []
    pipes.interrupts.cancel = lambda: cancelled.append(1)
    pipes.interrupt(SERIAL)
    assert cancelled == [1]
    assert pipes.interrupts.asked


@alone
def test_a_thread_never_takes_the_interrupt_that_waits() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    pipes.page.set(TARGET, SERIAL)
    within_a_write(pipes, INTERRUPT_SIGNAL)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            pipes.outlet.writer(0)("thread")
            pipes.outlet.flush()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not raised
    with pytest.raises(KeyboardInterrupt):
        pipes.interrupts.settle()


def within_a_write(pipes: Pipes, number: int) -> None:
    """Have a signal come while the main thread is within the capture, and leave it before anything is settled."""
    pipes.outlet.ask_for_flush = lambda: os.kill(os.getpid(), number)
    capture.HOLD = float("inf")
    pipes.outlet._take()
    try:
        pipes.outlet._hold(0, b"x")
    finally:
        pipes.outlet._lock.release()


@alone
def test_within_the_capture_an_interrupt_waits_until_it_is_left() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    pipes.page.set(TARGET, SERIAL)
    within_a_write(pipes, INTERRUPT_SIGNAL)
    assert pipes.interrupts.pending
    with pytest.raises(KeyboardInterrupt):
        pipes.outlet.writer(0)("y")
    assert pipes.interrupts.asked
    pipes.outlet.flush()
    assert pipes.text(0) == b"xy"


@alone
def test_an_interrupt_that_waits_dies_with_its_cell() -> None:
    pipes = installed()
    pipes.interrupts.arm(SERIAL)
    pipes.page.set(TARGET, SERIAL)
    within_a_write(pipes, INTERRUPT_SIGNAL)
    pipes.interrupts.disarm()
    pipes.interrupts.arm(SERIAL + 1)
    pipes.outlet.writer(0)("y")
    pipes.outlet.flush()


class Alarm(Exception):
    pass


def guarded(shown: list[str]) -> Pipes:
    pipes = installed()
    Guards(pipes.interrupts, lambda: shown.append(repr(sys.exc_info()[1]))).install()
    return pipes


def raise_alarm(_number: int, _frame: Any) -> None:
    raise Alarm


@alone
def test_user_code_sees_its_own_handlers() -> None:
    guarded([])
    before = signal.getsignal(signal.SIGINT)
    assert signal.signal(signal.SIGALRM, raise_alarm) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGALRM) is raise_alarm
    assert signal.signal(signal.SIGALRM, signal.SIG_IGN) is raise_alarm
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    assert signal.signal(signal.SIGINT, signal.default_int_handler) == before
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) == before
    with pytest.raises(TypeError):
        signal.signal(signal.SIGALRM, "no handler")  # type: ignore[arg-type]  # as user code may
    with pytest.raises(ValueError):
        signal.signal(1000, raise_alarm)


@alone
def test_a_handler_raises_in_the_code_of_the_cell() -> None:
    pipes = guarded([])
    signal.signal(signal.SIGALRM, raise_alarm)
    pipes.interrupts.arm(SERIAL)
    with pytest.raises(Alarm):
        os.kill(os.getpid(), signal.SIGALRM)


@alone
def test_a_handler_waits_until_the_capture_is_left() -> None:
    """One that raised there left marks parted, text doubled or the lock held: the node killed the worker."""
    pipes = guarded([])
    signal.signal(signal.SIGALRM, raise_alarm)
    pipes.interrupts.arm(SERIAL)
    within_a_write(pipes, signal.SIGALRM)
    with pytest.raises(Alarm):
        pipes.outlet.writer(0)("y")
    pipes.outlet.flush()
    assert pipes.text(0) == b"xy"


@alone
def test_what_a_handler_prints_in_the_midst_of_a_print_is_not_lost() -> None:
    pipes = guarded([])
    signal.signal(signal.SIGALRM, lambda *_: pipes.outlet.writer(0)("handler"))
    pipes.interrupts.arm(SERIAL)
    within_a_write(pipes, signal.SIGALRM)
    pipes.outlet.writer(0)("y")
    pipes.outlet.flush()
    assert pipes.text(0) == b"xyhandler"


@alone
def test_a_handler_that_waited_runs_when_the_next_cell_starts() -> None:
    pipes = guarded([])
    signal.signal(signal.SIGALRM, raise_alarm)
    within_a_write(pipes, signal.SIGALRM)
    with pytest.raises(Alarm):
        pipes.interrupts.arm(SERIAL)


@alone
def test_between_cells_what_a_handler_raises_is_shown_and_ends_nothing() -> None:
    shown: list[str] = []
    guarded(shown)
    signal.signal(signal.SIGALRM, raise_alarm)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGALRM)
    assert shown == ["Alarm()", "Alarm()"]


@alone
def test_signals_faster_than_their_errors_can_be_shown_do_not_pile_up() -> None:
    shown: list[int] = []
    pipes = installed()

    def show() -> None:
        shown.append(1)
        os.kill(os.getpid(), signal.SIGALRM)

    Guards(pipes.interrupts, show).install()
    signal.signal(signal.SIGALRM, raise_alarm)
    os.kill(os.getpid(), signal.SIGALRM)
    assert shown == [1]


@alone
def test_prints_under_a_storm_of_raising_alarms_stay_whole() -> None:
    pipes = guarded([])
    out, err = pipes.outlet.writer(0), pipes.outlet.writer(1)
    signal.signal(signal.SIGALRM, raise_alarm)
    pipes.outlet.begin(SERIAL)
    alarms = 0
    for _ in range(200):
        pipes.interrupts.arm(SERIAL)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            while True:
                out("o\n")
                err("e\n")
        except Alarm:
            alarms += 1
        pipes.interrupts.disarm()
        pipes.outlet.flush()
        for stream, letters in ((0, b"o\n"), (1, b"e\n")):
            text = pipes.text(stream)
            assert text == letters * (len(text) // 2)
    assert alarms == 200
    fences = pipes.outlet.fence(message=True)
    assert [mark.fence for mark in pipes.marks(0)] == [mark.fence for mark in pipes.marks(1)] == [fences]


@alone
def test_an_interrupt_is_put_off_while_ipython_shows_a_value_but_not_for_ever() -> None:
    """Its printer would show the error of its own cleaning up in place of the interrupt."""
    from IPython.lib.pretty import pretty

    pipes = Pipes()
    put_off: list[int] = []
    pipes.interrupts.again = lambda: put_off.append(1)
    pipes.interrupts.arm(7)
    pipes.page.set(TARGET, 7)

    class Probe:
        def _repr_pretty_(self, *_: object) -> None:
            pipes.interrupts.on_interrupt(0, sys._getframe(1))

    for count in range(1, 9):
        pretty(Probe())
        assert len(put_off) == count
    with pytest.raises(KeyboardInterrupt):
        pretty(Probe())
    assert pipes.interrupts.asked


@pytest.mark.parametrize("early", [1, 3])
@alone
def test_an_interrupt_that_comes_again_before_it_was_asked_for_is_not_lost(early: int) -> None:
    """It finds the main thread in the link, which has nothing that it could wait for."""
    pipes = installed()
    asked: list[int] = []
    in_link: dict[str, Any] = {"came": lambda frame: pipes.interrupts.on_interrupt(0, frame), "sys": sys}
    exec(compile("def ask(): came(sys._getframe())", str(link.__file__), "exec"), in_link)

    def again() -> None:
        asked.append(1)
        if len(asked) <= early:
            in_link["ask"]()

    pipes.interrupts.again = again
    pipes.interrupts.arm(SERIAL)
    pipes.page.set(TARGET, SERIAL)
    pipes.interrupts.ask_again()
    assert len(asked) == early + 1
    assert not pipes.interrupts.pending
    with pytest.raises(KeyboardInterrupt):  # as any other now
        pipes.interrupt(SERIAL)

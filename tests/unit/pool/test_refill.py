from __future__ import annotations

from capsule_pool.refill import LONGEST, Refill

DELAY = 2.0


def test_before_anything_happened_it_may_be_done_at_once() -> None:
    assert Refill().at(DELAY) < 0


def test_an_acquire_puts_it_off() -> None:
    refill = Refill()
    refill.acquired(10.0)
    assert refill.at(DELAY) == 12.0
    refill.acquired(11.0)
    assert refill.at(DELAY) == 13.0
    assert refill.at(0.0) == 11.0


def test_a_stream_of_acquires_does_not_put_it_off_for_ever() -> None:
    refill = Refill()
    for second in range(100):
        refill.acquired(float(second))
        refill.note(float(second), lacking=True)
    assert refill.at(DELAY) == LONGEST * DELAY


def test_what_was_made_good_begins_anew() -> None:
    refill = Refill()
    refill.note(0.0, lacking=True)
    refill.note(50.0, lacking=False)
    refill.acquired(60.0)
    refill.note(60.0, lacking=True)
    assert refill.at(DELAY) == 62.0

"""Output after the verdict keeps the name of its execution, within bounds."""

from __future__ import annotations

from capsule.node.late import REMEMBERED, Late


def test_late_output_names_its_execution() -> None:
    late = Late()
    late.remember(3, "x_three")
    (event,) = late.output(3, 1, b"late")
    assert (event.execution_id, event.sequence, event.stream, event.text) == ("x_three", 0, "stderr", "late")


def test_output_of_nobody_belongs_to_the_session() -> None:
    (event,) = Late().output(0, 0, b"x")
    assert event.execution_id == ""


def test_text_that_is_cut_within_a_character_is_put_together() -> None:
    late = Late()
    late.remember(1, "x_1")
    assert late.output(1, 0, b"\xe2\x82") == []
    (event,) = late.output(1, 0, b"\xac")
    assert event.text == "€"


def test_long_output_is_chunked() -> None:
    assert [len(event.text) for event in Late().output(0, 0, b"x" * 100_000)] == [65_536, 34_464]


def test_names_are_forgotten_in_the_order_of_their_end() -> None:
    late = Late()
    for serial in range(1, REMEMBERED + 2):
        late.remember(serial, f"x_{serial}")
    assert not late.knows("x_1")
    assert late.knows("x_2")
    assert late.knows("")
    assert late.output(1, 0, b"x")[0].execution_id == ""

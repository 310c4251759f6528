"""What cells have shown is kept as a page would have it, and within bounds."""

from __future__ import annotations

from typing import Any

from capsule.jupyter.kept import BOUND, LARGEST, Kept
from capsule.jupyter.translate import Shown


def text(words: str, name: str = "stdout") -> Shown:
    return Shown("stream", {"name": name, "text": words})


def display(words: str, name: str | None = None, kind: str = "display_data") -> Shown:
    transient: dict[str, Any] = {} if name is None else {"display_id": name}
    return Shown(kind, {"data": {"text/plain": words}, "metadata": {}, "transient": transient})


def words(kept: Kept, number: int) -> list[str]:
    """What is shown again: the text of streams, and of values."""
    shown = [told.content for told in kept.again(number)]
    return [content.get("text") or content.get("evalue") or content["data"]["text/plain"] for content in shown]


def made(*told: Shown, number: int = 1) -> Kept:
    kept = Kept()
    kept.begin(number)
    for one in told:
        kept.add(number, one)
    return kept


def test_neighbouring_text_of_one_stream_is_joined() -> None:
    kept = made(text("a"), text("b"), text("c", "stderr"), text("d"), display("e"), text("f"))
    assert words(kept, 1) == ["ab", "c", "d", "e", "f"]


def test_what_is_kept_is_no_part_of_what_was_told() -> None:
    told = text("a")
    made(told, text("b"))
    assert told.content["text"] == "a"


def test_a_value_is_shown_as_a_display_and_an_error_as_an_error() -> None:
    value = Shown("execute_result", {"execution_count": 1, "data": {"text/plain": "5"}, "metadata": {"m": 1}})
    error = Shown("error", {"ename": "E", "evalue": "why", "traceback": []})
    again = list(made(value, error).again(1))
    assert [told.kind for told in again] == ["display_data", "error"]
    assert again[0].content == {"data": {"text/plain": "5"}, "metadata": {"m": 1}, "transient": {}}
    assert again[1].content == error.content


def test_an_update_changes_what_any_cell_has_shown() -> None:
    kept = made(display("old", "d"), display("other", "o"), display("none"))
    kept.begin(2)
    kept.add(2, display("new", "d", "update_display_data"))
    kept.add(0, display("newest", "o", "update_display_data"))
    assert words(kept, 1) == ["new", "newest", "none"]
    assert words(kept, 2) == []


def test_output_is_cleared_at_once_or_by_what_comes_next() -> None:
    now, later = Shown("clear_output", {"wait": False}), Shown("clear_output", {"wait": True})
    assert words(made(text("a"), now), 1) == []
    assert words(made(text("a"), later), 1) == ["a"]
    assert words(made(text("a"), later, text("b"), text("c")), 1) == ["bc"]


def test_what_belongs_to_no_cell_and_what_shows_nothing_is_not_kept() -> None:
    kept = made(Shown("comm_msg", {"comm_id": "c", "data": {}}), text("a"))
    kept.add(7, text("lost"))
    assert kept.numbers == [1]
    assert words(kept, 1) == ["a"]


def test_a_number_that_comes_again_begins_anew_and_a_session_too() -> None:
    kept = made(text("a"))
    kept.begin(1)
    assert words(kept, 1) == []
    kept.clear()
    assert kept.numbers == []


def test_of_one_cell_so_much_is_kept_and_the_rest_is_counted() -> None:
    kept = made(*[text("x" * 2**20) for _ in range(5)])
    *shown, missing = words(kept, 1)
    assert len("".join(shown)) == 3 * 2**20 < LARGEST
    assert "2097" in missing
    assert "bytes more" in missing


def test_the_oldest_cells_go_when_there_is_too_much() -> None:
    kept = Kept()
    for number in range(1, 20):
        kept.begin(number)
        kept.add(number, text("x" * 2**21))
    assert kept.numbers == list(range(20 - (BOUND >> 21) + 1, 20))
    kept.begin(20)
    kept.add(20, text("y"))
    assert words(kept, 20) == ["y"]


def test_what_was_cleared_counts_no_more() -> None:
    kept = made(text("a"))
    for _ in range(20):
        kept.add(1, text("x" * 2**21))
        kept.add(1, Shown("clear_output", {"wait": False}))
    kept.add(1, text("z"))
    assert words(kept, 1) == ["z"]
    for number in range(2, 8):
        kept.begin(number)
        kept.add(number, text("x" * 2**21))
    assert kept.numbers == list(range(1, 8))

"""Display: what values become on the wire, ids, updates, and what the shell keeps."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import fractions
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from IPython.core.displayhook import DisplayHook

from capsule_kernels.display import plain
from capsule_protocol import codec
from capsule_protocol.envelope import Envelope
from capsule_protocol.marks import FLUSHED
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session


class Colour(str, enum.Enum):  # noqa: UP042  # its `str` is not its value, as a StrEnum's is
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


def test_plain_values_stay_the_same_objects() -> None:
    for value in ("text", "", 0, -(2**63), 2**64 - 1, 1.5, float("inf"), True, None):
        assert plain(value) is value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x89PNG", base64.b64encode(b"\x89PNG").decode()),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"abcd")[::2], "YWM="),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (Colour.RED, "red"),
        (Text("this"), "this"),
        (np.str_("n"), "n"),
        (Level.HIGH, 3),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.bool_(1), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(7), 7),
        (fractions.Fraction(1, 2), 0.5),
        (decimal.Decimal("1.10"), "1.10"),
        ({3}, [3]),
        (frozenset({"x"}), ["x"]),
        (range(3), [0, 1, 2]),
        ((1, (2, [3])), [1, [2, [3]]]),
        ({1: {2.5: None}, None: True}, {"1": {"2.5": None}, "None": True}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05+00:00"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_everything_else_becomes_what_json_can_carry(value: object, expected: object) -> None:
    found = plain({"value": value})["value"]
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found)
    assert codec.decode(codec.encode(Envelope("display", {"value": found}))).body == {"value": expected}


def test_an_object_that_cannot_be_shown_is_shown_by_its_type() -> None:
    class Broken:
        def __str__(self) -> str:
            raise LookupError

    assert plain([Broken()]) == ["<Broken>"]


def test_a_value_within_itself_is_an_error_of_the_caller() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RecursionError):
        plain(value)


PLAIN = ["0", "-5", "10**30", "True", "''", "'a\\nb'", "'\"'", "b'x'", "'é' * 200", "'\\ud800'", "2**100"]


@alone
def test_the_quick_way_shows_what_ipython_shows() -> None:
    session = Session()
    hook: Any = session.python.displayhook
    for source in PLAIN:
        value = eval(source)
        assert hook.compute_format_data(value) == DisplayHook.compute_format_data(hook, value), source
        assert session.value(source) == repr(value)


@alone
def test_a_printer_that_the_user_registers_wins() -> None:
    session = Session()
    session.value(
        "plain = get_ipython().display_formatter.formatters['text/plain']\n"
        "html = get_ipython().display_formatter.formatters['text/html']\n"
        "def show(value, printer, cycle): printer.text(f'<{value}>')\n"
        "plain.for_type(int, show);"
    )
    assert session.value("5") == "<5>"
    assert session.value("'x'") == "'x'"
    session.value("html.for_type(str, lambda text: f'<b>{text}</b>');")
    assert session.run("'x'")["data"] == {"text/plain": "'x'", "text/html": "<b>x</b>"}
    session.value("plain.pop(int)\nhtml.pop(str);")
    assert session.run("5")["data"] == {"text/plain": "5"}


@alone
def test_subclasses_take_ipythons_way() -> None:
    session = Session()
    assert session.value("class N(int):\n    def _repr_html_(self): return 'h'\nN(3)") == "3"
    assert session.run("N(3)")["data"]["text/html"] == "h"


@alone
def test_a_number_too_long_to_print_ends_nothing() -> None:
    session = Session()
    session.run("10**5000")
    assert b"Exceeds the limit" in session.text(1)
    assert session.value("_ == 10**5000") == "True"
    assert session.value("1") == "1"


@alone
def test_out_is_bounded_and_says_nothing() -> None:
    session = Session()
    session.python.displayhook.cache_size = 10
    for number in range(40):
        session.value(str(number))
    kept = session.python.user_ns["_oh"]
    assert len(kept) <= 10
    assert list(kept) == sorted(kept)
    assert kept[40] == 39
    assert [name for name in session.python.user_ns if name[:1] == "_" and name[1:].isdigit()] == [
        f"_{n}" for n in kept
    ]
    assert session.raw(1) == b""


@alone
def test_underscores_are_the_last_values_unless_the_user_takes_them() -> None:
    session = Session()
    for code in ("1", "2", "3"):
        session.value(code)
    assert session.value("_, __, ___") == "(3, 2, 1)"
    session.value("_ = 'mine'")
    session.value("4")
    assert session.value("_") == "'mine'"


@alone
def test_a_display_is_announced_in_the_pipes_and_sent() -> None:
    session = Session()
    session.value("print('before')\ndisplay('shown', display_id='one')\nprint('after')")
    message = session.message(session.shell)
    assert (message.type, message.execution) == ("display", "x_1")
    assert message.body == {
        "data": {"text/plain": "'shown'"},
        "metadata": {},
        "display_id": "one",
        "update": False,
        "fence": 1,
    }
    parts = [part for part in session.parts(0) if isinstance(part, bytes) or part.flags != FLUSHED]
    assert parts[0] == b"before\n"
    assert parts[-1] == b"after\n"


@alone
def test_updates_and_ids_and_clear_output() -> None:
    session = Session()
    session.value(
        "from IPython.display import clear_output, update_display\n"
        "handle = display(1, display_id=True)\nhandle.update(2)\nclear_output(wait=True)\n"
        "update_display(3, display_id=7)"
    )
    first, second, clear, third = (session.message(session.shell) for _ in range(4))
    assert first.body["display_id"] == second.body["display_id"]
    assert (first.body["update"], second.body["update"]) == (False, True)
    assert (clear.type, clear.body["wait"]) == ("clear_output", True)
    assert third.body["display_id"] == "7"  # text on the wire, or the node would take it for a breach


@pytest.mark.parametrize("call", ["publish('text')", "publish({}, 5)", "publish(None)", "publish([1])"])
@alone
def test_what_is_no_bundle_is_an_error_of_the_caller(call: str) -> None:
    """Sent, it would cost the session its worker: the node takes it for a breach of the protocol."""
    session = Session()
    assert session.error(f"get_ipython().display_pub.{call}")["name"] == "TypeError"
    assert not session.shell.poll(0)


@alone
def test_a_display_over_the_limit_is_an_error_of_the_caller_and_leaves_no_fence() -> None:
    session = Session(message_bytes=100_000)
    assert session.error("display({'text/plain': 'x' * 200_000}, raw=True)")["name"] == "LocalProtocolError"
    assert not session.marks(0)
    session.value("display(1)")
    assert session.message(session.shell).body["fence"] == 1


@alone
def test_a_second_value_of_a_cell_makes_the_first_a_display() -> None:
    session = Session()
    session.python.ast_node_interactivity = "all"
    assert session.value("1\n2\n3") == "3"
    assert [session.message(session.shell).body["data"]["text/plain"] for _ in range(2)] == ["1", "2"]


@alone
def test_progress_is_rate_limited_and_the_last_one_is_never_dropped() -> None:
    session = Session()
    assert session.error("capsule_progress('x')")["name"] == "ValueError"
    session.value("for n in range(1, 1001): capsule_progress(n, 1000, 'work')\ncapsule_progress(text='no numbers')")
    found: list[dict[str, Any]] = []
    while not found or found[-1]["current"] != 1000.0:
        found.append(session.message(session.shell).body)
    assert len(found) < 1000
    assert found[0] == {"current": 1.0, "total": 1000.0, "text": "work"}

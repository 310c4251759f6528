"""Calls from within a session: what they are given, what they get, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from capsule.broker.audit.reading import Wanted, entries
from capsule_protocol.errors import ArgumentError
from tests.acceptance.broker.events import found

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession
    from tests.acceptance.broker.conftest import Granting

pytestmark = pytest.mark.anyio

ALL = '[[grants]]\nname = "all"\ncapabilities = ["acme.*"]\n'


async def value(session: AsyncSession, code: str) -> str:
    """What the code comes to."""
    result = await session.run(code)
    assert result.verdict == "ok", result.error
    return str(result.text)


async def refused(session: AsyncSession, code: str) -> str:
    """The code of the error that a call ends in, and the classes of that."""
    return await value(
        session,
        f"try:\n    {code}\n    caught = None\nexcept Exception as error:\n"
        "    classes = (PermissionError, TimeoutError, FileNotFoundError, ValueError, caps.CapabilityError)\n"
        "    caught = error.code, [each.__name__ for each in classes if isinstance(error, each)]\ncaught",
    )


async def test_a_call_is_plain_in_a_cell_and_awaited_in_a_coroutine(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        assert await value(session, "caps.acme.greet('you')") == "'hello you'"
        assert await value(session, "await caps.acme.greet('you', loud=True)") == "'HELLO YOU'"
        main = "import asyncio\nasync def main():\n    return await caps.acme.greet(name='me')\nasyncio.run(main())"
        assert await value(session, main) == "'hello me'"
        assert await value(session, "async def f():\n    return caps.plain.acme.greet('it')\nawait f()") == "'hello it'"


async def test_caps_is_a_module_too_and_help_tells_what_is_granted(granting: Granting) -> None:
    text = '[[grants]]\nname = "some"\ncapabilities = ["acme.greet", "acme.count"]\n'
    async with granting(text) as node, node.client.session() as session:
        assert await value(session, "import caps as module\nfrom caps import acme\nmodule is caps, acme") == (
            "(True, <capabilities acme.*>)"
        )
        told = (await session.run("help(caps)")).stdout
        assert "caps.acme.greet(name, loud=False)\n        Greet somebody" in told
        assert "caps.acme.count(*, data=b'')" in told
        assert "acme.mark" not in told
        assert await value(session, "[name for name in dir(caps.acme) if name[0] != '_']") == "['count', 'greet']"


CALLS_AS_SHOWN = """
import inspect
VALUES = {"name": "you", "words": ["a", "b"], "text": "x", "size": 3, "kind": "none", "data": [b"ab", b"c"]}
made = {}
for line in caps.__doc__.splitlines():
    if line.startswith("caps."):
        name, _, given = line.removeprefix("caps.acme.").partition("(")
        exec(f"def shown({given}: pass")
        signature = inspect.signature(shown)
        plain = [each for each in signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
        named = [each for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]
        positional = [VALUES.get(each.name, each.default) for each in plain]
        bound = signature.bind(*positional, **{each.name: VALUES.get(each.name, each.default) for each in named})
        if name != "wait":
            made[name] = getattr(caps.acme, name)(*bound.args, **bound.kwargs)
"""


async def test_each_operation_can_be_called_as_help_shows_it(granting: Granting, tmp_path: Path) -> None:
    text = ALL + f'scope.marks = "{tmp_path}/marks"\n'
    async with granting(text) as node, node.client.session() as session:
        result = await session.run(CALLS_AS_SHOWN)
        assert result.ok, result.error
        assert await value(session, "sorted(made)") == ("['count', 'echo', 'give', 'greet', 'join', 'mark', 'trouble']")
        told = "made['greet'], made['join'], made['give'], made['echo'], made['mark'].lines, made['count'].size"
        assert await value(session, told) == "('hello you', 'a b', b'\\x00\\x00\\x00', b'abc', 1, 3)"


async def test_what_is_not_granted_is_denied(granting: Granting) -> None:
    text = '[[grants]]\nname = "some"\ncapabilities = ["acme.greet"]\nscope = { names = ["you"] }\n'
    async with granting(text) as node, node.client.session() as session:
        assert (
            await refused(session, "caps.acme.mark('x')")
            == "('capability_denied', ['PermissionError', 'CapabilityError'])"
        )
        assert "capability_outside_grant" in await refused(session, "caps.acme.greet('me')")
        assert "capability_unknown" in await refused(session, "caps.acme.nothing()")
        assert "capability_unknown" in await refused(session, "caps.nobody.anything()")
        assert (
            await refused(session, "caps.acme.greet(3)") == "('capability_invalid', ['ValueError', 'CapabilityError'])"
        )
        assert "capability_invalid" in await refused(session, "caps.acme.greet('you', name='you')")
        assert [record.code for record in node.records] == [
            "capability_denied",
            "capability_outside_grant",
            "capability_unknown",
            "capability_unknown",
            "capability_invalid",
            "capability_invalid",
        ]
        assert {record.outcome for record in node.records} == {"denied", "failed"}


async def test_a_node_without_a_policy_offers_nothing(package: None) -> None:
    from capsule import AsyncClient

    async with AsyncClient() as client, client.session() as session:
        result = await session.run("caps")
        assert result.error is not None
        assert result.error.name == "NameError"


async def test_a_session_can_only_narrow(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session(capabilities=["acme.greet", "files.*"]) as session:
        assert await value(session, "caps.acme.greet('you')") == "'hello you'"
        assert "capability_denied" in await refused(session, "caps.acme.give(1)")
        assert await value(session, "[each['name'] for each in caps.granted()]") == "['acme.greet']"


async def test_bodies_of_any_size_come_and_go_whole(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        assert await value(session, "caps.acme.give(0), len(caps.acme.give(1)), len(caps.acme.give(30_000_000))") == (
            "(b'', 1, 30000000)"
        )
        assert await value(session, "data = bytes(range(256)) * 80_000\ncaps.acme.echo(data) == data") == "True"
        assert await value(session, "await caps.acme.echo(data) == data") == "True"
        parts = "caps.acme.count(data=(bytes([1]) * size for size in (0, 1, 70_000, 3_000_000, 0)))"
        assert await value(session, f"counted = {parts}\ncounted.size, counted['total']") == "(3070001, 3070001)"
        assert await value(session, "sum(len(each) for each in caps.acme.give.stream(9_000_000))") == "9000000"
        assert (
            await value(session, "n = 0\nasync for each in caps.acme.give.stream(9_000_000):\n    n += len(each)\nn")
            == "9000000"
        )


async def test_many_calls_at_once_each_get_their_own_answer(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        code = (
            "import asyncio, threading\n"
            "names = [str(number) for number in range(200)]\n"
            "answers = await asyncio.gather(*map(caps.acme.greet, names))\n"
            "heard = {}\n"
            "def greet(name): heard[name] = caps.acme.greet(name)\n"
            "threads = [threading.Thread(target=greet, args=(name,)) for name in names[:20]]\n"
            "for thread in threads: thread.start()\n"
            "for thread in threads: thread.join()\n"
            "answers == ['hello ' + name for name in names], heard == {name: 'hello ' + name for name in names[:20]}"
        )
        assert await value(session, code) == "(True, True)"


async def test_a_call_that_takes_too_long_times_out_and_one_that_fails_says_why(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        assert (
            await refused(session, "caps.acme.wait()") == "('capability_timeout', ['TimeoutError', 'CapabilityError'])"
        )
        assert "capability_failed" in await refused(session, "caps.acme.trouble('told')")
        assert await value(
            session,
            "try: caps.acme.trouble('told')\nexcept OSError: pass\nexcept Exception as error: e = error.details\ne",
        ) == ("{'causes': ['FileNotFoundError']}")
        result = await session.run("caps.acme.trouble('bug')")
        assert result.error is not None
        assert "ZeroDivisionError" in result.error.message
        assert "hunter2" not in str(result.error)
        assert node.acme.running == 0


async def test_an_interrupt_gives_a_call_up(granting: Granting) -> None:
    text = ALL + "limits = { timeout = 60.0 }\n"
    async with granting(text) as node, node.client.session() as session:
        for code in ("caps.acme.wait()", "await caps.acme.wait()"):
            execution = session.start(code, {})
            await node.acme.reached(1)
            assert await session.interrupt()
            assert (await execution.result()).verdict == "interrupted"
            await node.acme.reached(0)
        assert await value(session, "caps.acme.greet('you')") == "'hello you'"
        assert [record.code for record in node.records] == ["capability_canceled"] * 2 + [""]


async def test_calls_end_with_their_worker_and_their_session(granting: Granting) -> None:
    async with granting(ALL + "limits = { timeout = 60.0 }\n") as node:
        async with node.client.session() as session:
            execution = session.start("caps.acme.wait()", {})
            await node.acme.reached(1)
            os.kill((await session.info()).pid, signal.SIGKILL)
            assert not (await execution.result()).ok
            await session.restart()
            assert node.acme.running == 0
            assert await value(session, "caps.acme.greet('you')") == "'hello you'"
            execution = session.start("caps.acme.wait()", {})
            await node.acme.reached(1)
        assert node.acme.running == 0
        assert [record.code for record in node.records] == ["capability_canceled", "", "capability_canceled"]


async def test_a_forked_child_makes_no_calls(granting: Granting) -> None:
    code = (
        "import os\nread, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    try: caps.acme.greet('you')\n"
        "    except caps.CapabilityError as error: os.write(write, error.code.encode())\n"
        "    os._exit(0)\n"
        "os.read(read, 100)"
    )
    async with granting(ALL) as node, node.client.session() as session:
        assert await value(session, code) == "b'capability_failed'"


@pytest.mark.parametrize(
    ("limits", "code", "expected"),
    [
        ("{ response_bytes = 1000 }", "caps.acme.give(1001)", "capability_too_large"),
        ("{ request_bytes = 1000 }", "caps.acme.count(bytes(1001))", "capability_too_large"),
        ("{ request_bytes = 1000000 }", "caps.acme.count(bytes(9_000_000))", "capability_too_large"),
        ("{ total_bytes = 1000 }", "[caps.acme.give(400) for _ in range(3)]", "capability_too_large"),
        ("{ per_second = 2.0 }", "[caps.acme.greet('x') for _ in range(5)]", "capability_throttled"),
    ],
)
async def test_the_bounds_of_a_grant_hold(granting: Granting, limits: str, code: str, expected: str) -> None:
    async with granting(ALL + f"limits = {limits}\n") as node, node.client.session() as session:
        assert expected in await refused(session, code)


async def test_no_more_calls_are_under_way_than_the_grant_allows(granting: Granting) -> None:
    text = ALL + "limits = { concurrent = 2, timeout = 0.3 }\n"
    async with granting(text) as node, node.client.session() as session:
        code = (
            "import asyncio\n"
            "found = await asyncio.gather(*(caps.acme.wait() for _ in range(4)), return_exceptions=True)\n"
            "{each.code for each in found} <= {'capability_timeout', 'capability_busy'}"
        )
        assert await value(session, code) == "True"
        assert node.acme.most == 2


async def test_what_changes_something_is_recorded_before_and_after_without_secrets(
    granting: Granting, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    async with granting(ALL + f'scope = {{ marks = "{marks}" }}\n') as node, node.client.session(name="s") as session:
        assert await value(session, "caps.acme.mark('one', password='hunter2').lines") == "1"
        begun, ended = node.records
        assert (begun.outcome, ended.outcome, ended.grant, ended.session_name) == ("begun", "accepted", "all", "s")
        assert ended.arguments == {"text": "one", "password": {"secret_bytes": 7}}
        assert "hunter2" not in str(node.records)


@pytest.mark.parametrize("body", [{"request": 0}, {"capability": ""}, {"positional": "x"}, {"arguments": {1: 2}}])
async def test_a_worker_that_breaks_the_protocol_of_calls_is_ended(granting: Granting, body: dict[Any, Any]) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        code = f"""
from capsule_protocol.envelope import Envelope
link = caps.calls._link
whole = {{"request": 1, "capability": "acme.greet", "positional": [], "arguments": {{}}, "more": False, "window": 0}}
link.check = lambda envelope: None
link.send(Envelope("capability_request", {{**whole, **{body!r}}}, session=caps.calls._publisher.session))
import time
time.sleep(60)
"""
        result = await session.run(code)
        assert result.verdict in {"worker_lost", "error"}


async def test_a_stream_that_nobody_asked_for_ends_the_worker(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        code = """
from capsule_protocol.envelope import Envelope
calls = caps.calls
body = {"request": 1, "capability": "acme.count", "positional": [], "arguments": {}, "more": True, "window": 0}
calls._link.send(Envelope("capability_request", body, session=calls._publisher.session))
flood = Envelope("stream_data", {"stream": "call:1"}, session=calls._publisher.session, buffers=(bytes(5 * 2**20),))
calls._link.send(flood)
import time
time.sleep(60)
"""
        assert (await session.run(code)).verdict == "worker_lost"


async def test_a_message_of_millions_of_nothings_costs_its_worker_and_nobody_else(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session, node.client.session() as other:
        assert await value(other, "caps.acme.greet('you')") == "'hello you'"
        code = """
from capsule_protocol import codec
from capsule_protocol.envelope import Envelope
codec.check_structure = lambda *_: None
body = {"request": 1, "capability": "acme.join", "positional": [[[]] * 2_000_000], "arguments": {}, "more": False,
        "window": 0}
caps.calls._link.send(Envelope("capability_request", body, session=caps.calls._publisher.session))
import time
time.sleep(60)
"""
        begun = time.thread_time()
        flood = asyncio.ensure_future(session.run(code))
        assert await value(other, "caps.acme.greet('you')") == "'hello you'"
        assert (await flood).verdict == "worker_lost"
        assert (
            time.thread_time() - begun < 1.0
        )  # all that this thread did, the node's loop: it was 1.6 s for this alone


async def test_lists_and_tuples_are_the_same_and_bytes_are_no_argument(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        assert await value(session, "caps.acme.join(['a', 'b']), caps.acme.join(('a',))") == "('a b', 'a')"
        assert "capability_invalid" in await refused(session, "caps.acme.join([b'a'])")
        assert "capability_invalid" in await refused(session, "caps.acme.join(words=[{1: 2}])")


async def test_an_approval_above_a_size_is_needed_for_a_body_that_is_still_to_come(granting: Granting) -> None:
    asked = []
    text = ALL + "approval = { above = { request_bytes = 1000 } }\n"

    def deny(approval: Any) -> None:
        asked.append(approval.capability)

    async with granting(text, on_approval=deny) as node, node.client.session() as session:
        assert await value(session, "caps.acme.count(bytes(1000)).size") == "1000"
        assert "approval_denied" in await refused(session, "caps.acme.count(bytes(1001))")
        assert "approval_denied" in await refused(session, "caps.acme.count(bytes(400_000))")
        assert asked == ["acme.count", "acme.count"]


async def test_a_policy_that_is_tried_out_notes_what_it_would_deny(granting: Granting) -> None:
    text = 'mode = "observe"\n' + ALL + 'approval = "always"\nlimits = { per_second = 1.0 }\n'
    async with granting(text) as node, node.client.session() as session:
        assert await value(session, "[caps.acme.greet(name) for name in 'ab']") == "['hello a', 'hello b']"
        assert [record.details for record in node.records] == [
            {"observed": ["approval_needed"]},
            {"observed": ["capability_throttled", "approval_needed"]},
        ]


async def test_a_policy_that_is_tried_out_denies_what_no_grant_allows_and_records_it_so(granting: Granting) -> None:
    grant = '[[grants]]\nname = "some"\ncapabilities = ["acme.greet", "acme.give"]\nscope.names = ["you"]\n'
    text = f'mode = "observe"\n{grant}[[denials]]\nname = "no"\ncapabilities = ["acme.give"]\n'
    async with granting(text) as node, node.client.session() as session:
        assert "capability_denied" in await refused(session, "caps.acme.mark('x')")
        assert "capability_outside_grant" in await refused(session, "caps.acme.greet('me')")
        assert "capability_denied" in await refused(session, "caps.acme.give(1)")
        assert [(record.outcome, record.details) for record in node.records] == [("denied", None)] * 3


async def test_who_fails_too_often_is_kept_away_for_a_while(granting: Granting) -> None:
    budget = "[budget]\nfaults = 5\nwarn = 40.0\nthrottle = 60.0\ndelay = 0.0\npause = 0.2\nlongest_pause = 1.0\n"
    async with granting(budget + ALL) as node, node.client.session() as session, node.client.session() as other:
        fail = (
            "for _ in range(6):\n    try: caps.acme.trouble('told')\n"
            "    except caps.CapabilityError as error: last = error\nlast.code"
        )
        assert await value(session, fail) == "'capability_isolated'"
        assert await value(other, "caps.acme.greet('you')") == "'hello you'"
        wait = "import time\ntime.sleep(last.details['retry_after'])\ncaps.acme.greet('you')"
        assert await value(session, wait) == "'hello you'"
        steps = [record.outcome for record in node.broker.checkpoint.recorder.audit.records if record.kind == "budget"]
        assert steps == ["warned", "throttled", "isolated", "probing", "calm"]


ASK = '[[grants]]\nname = "ask"\ncapabilities = ["ask.*"]\n'


async def test_a_question_to_a_person_is_a_call_too(granting: Granting) -> None:
    async with granting(ASK) as node, node.client.session() as session:
        heard = []

        def answer(request: Any) -> Any:
            heard.append((request.prompt, request.choices))
            return "yes" if request.choices else "Ada"

        result = await session.run("caps.ask.question('Name? ')", on_input=answer, timeout=60)
        assert result.text == "'Ada'", result.error
        result = await session.run("await caps.ask.question('Deploy? ', choices=['yes', 'no'])", on_input=answer)
        assert result.text == "'yes'", result.error
        assert heard == [("Name? ", None), ("Deploy? ", ["yes", "no"])]
        assert "no_input_client" in await refused(session, "caps.ask.question('Name? ')")
        assert "capability_invalid" in await refused(session, "caps.ask.question(choices=[])")


async def test_a_question_ends_with_its_time_and_with_its_code(granting: Granting) -> None:
    async with granting(ASK) as node, node.client.session() as session:
        waits = asyncio.Event()

        async def never(request: Any) -> Any:
            waits.set()
            await asyncio.get_running_loop().create_future()

        late = "try: caps.ask.question('Name? ', timeout=0.1)\nexcept TimeoutError as error: code = error.code\ncode"
        assert (await session.run(late, on_input=never)).text == "'input_timeout'"
        waits.clear()
        running = asyncio.ensure_future(session.run("caps.ask.question('Name? ')", on_input=never))
        await waits.wait()
        assert await session.interrupt()
        assert (await running).verdict == "interrupted"
        assert (await session.run("1 + 1")).text == "2"


async def test_calls_that_are_given_up_at_once_are_over_and_recorded(granting: Granting, tmp_path: Path) -> None:
    """Request and cancellation come in one piece, so that a call is cancelled before its first step.

    One counts until the node is done with it: no code that is in a hurry has more under way than it may have.
    """
    audit, text = tmp_path / "audit", ALL + "limits = { timeout = 60.0 }\n"

    async with granting(text, broker={"audit": audit}) as node, node.client.session() as session:
        code = (
            "from capsule_kernels.calls import Asked\n"
            "made = 0\n"
            "for _ in range(2000):\n"
            "    talk = caps.calls._converse(Asked('acme.wait', (), {}), print)\n"
            "    try: talk.send(None)\n"
            "    except caps.CapabilityError as error:\n"
            "        assert '256 calls without an answer' in error.message\n"
            "        continue\n"
            "    made += 1\n"
            "    talk.close()\n"
            "made"
        )
        made = int(await value(session, code))
        assert made >= 256

        async def codes() -> list[str]:
            recorded = [entry.record.code for entry in entries(audit, Wanted(kind="call"))]
            return recorded if len(recorded) >= made else []

        assert await found(audit, codes) == ["capability_canceled"] * made
        assert await value(session, "caps.acme.greet('you')") == "'hello you'"


async def test_who_tries_what_is_not_there_is_slowed_down_too(granting: Granting) -> None:
    budget = "[budget]\nfaults = 5\nwarn = 40.0\nthrottle = 60.0\ndelay = 0.2\npause = 60.0\nlongest_pause = 60.0\n"
    async with granting(budget + ALL) as node, node.client.session() as session:
        code = (
            "import time\nbegun, codes = time.monotonic(), []\n"
            "for _ in range(10):\n    try: caps.made.up()\n"
            "    except caps.CapabilityDenied as error: codes.append(error.code)\n"
            "codes, time.monotonic() - begun >= 7 * 0.2"
        )
        told = await value(session, code)
        assert "capability_isolated" in told
        assert told.endswith("True)"), told
        assert await value(session, "caps.acme.greet('you')") == "'hello you'"


async def test_a_scope_that_cannot_be_served_is_told_with_its_grant_and_line(granting: Granting) -> None:
    """An operator with fifty grants has to know which one."""
    grant = '[[grants]]\nname = "data"\ncapabilities = ["files.read"]\nscope.roots.data = { path = "/none/such" }\n'
    with pytest.raises(ArgumentError, match=r"line 5: grants.data: scope.roots.data.path: '/none/such' cannot be"):
        async with granting(grant) as node, node.client.session():
            pass


async def test_who_gives_text_for_the_body_is_told_that_it_is_bytes(granting: Granting) -> None:
    async with granting(ALL) as node, node.client.session() as session:
        result = await session.run("caps.acme.count('text')")
        assert result.error is not None
        assert "1 arguments are given; it takes data (bytes)" in result.error.message


async def test_what_calls_have_answered_and_raised_is_saved_and_restored(granting: Granting) -> None:
    async with granting(ALL) as node:
        async with node.client.session() as session:
            await value(session, "answer = caps.acme.count(data=b'abc')\nother = 1\nanswer")
            await value(session, "try: caps.acme.greet(3)\nexcept ValueError as error: kept = error")
            report = await session.save()
        assert {saved.name for saved in report.saved} == {"answer", "other", "kept"}
        async with node.client.session() as session:
            await session.restore(report.data or b"")
            assert await value(session, "answer, answer.size, other") == "(Response(size=3, total=294), 3, 1)"
            assert await value(session, "isinstance(kept, ValueError), kept.code") == "(True, 'capability_invalid')"


MISTAKEN = [
    "caps.acme.greet(*['x'] * 65)",
    "list(caps.acme.give.stream(*['x'] * 65))",
    "getattr(caps.acme, 'r' * 500)('x')",
    r"getattr(caps.acme, '\ud800' * 40)('x')",
    "getattr(caps.acme, 'r' * 70_000_000)('x')",
    "caps.acme.greet(10**30)",
    "caps.acme.greet(object())",
]


async def test_a_call_that_no_message_can_carry_is_an_error_and_not_the_end_of_the_session(granting: Granting) -> None:
    invalid = "('capability_invalid', ['ValueError', 'CapabilityError'])"
    async with granting(ALL) as node, node.client.session() as session:
        for mistake in MISTAKEN:
            assert await refused(session, mistake) == invalid, mistake
        assert await refused(session, "await caps.acme.greet(*['x'] * 65)") == invalid
        assert "capability_invalid" in await refused(session, "caps.acme.greet(*['x'] * 64)")  # the node has said so
        assert await value(session, "caps.acme.greet('you')") == "'hello you'"
        assert len(node.records) == 2


BUSY = "import time\nend = time.monotonic() + 10\nwhile time.monotonic() < end: pass"


@pytest.mark.parametrize(
    "code",
    [
        f"import threading\nthreading.Thread(target=caps.acme.greet, args=('you',), daemon=True).start()\n{BUSY}",
        f"import asyncio\ntask = asyncio.ensure_future(caps.acme.greet('you'))\nawait asyncio.sleep(0)\n{BUSY}",
        f"import threading\nthreading.Thread(target=caps.ask.question, args=('?',), daemon=True).start()\n{BUSY}",
    ],
    ids=["a thread", "a task", "a question"],
)
async def test_the_time_of_code_goes_on_while_a_call_of_it_waits_for_people_and_it_computes(
    granting: Granting, code: str
) -> None:
    text = ALL + 'approval = "always"\n[[grants]]\nname = "ask"\ncapabilities = ["ask.*"]\n'
    async with granting(text, on_approval=for_ever) as node, node.client.session() as session:
        result = await session.run(code, timeout=0.5, on_input=for_ever)
        assert result.verdict == "timeout", result


async def for_ever(_: Any) -> Any:
    """Nobody answers."""
    await asyncio.Event().wait()

"""What code says that no message can carry is an error of the code; it costs the session nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule_protocol.errors import ExecutionError
from tests.acceptance.behaviour.support import ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

OPENED = "import comm; opened = comm.create_comm(target_name='x')\n"
MISTAKES = {
    "comm_target": ("import comm; comm.create_comm(target_name=5)", "TypeError: target_name of a comm is text"),
    "comm_id": ("import comm; comm.create_comm(target_name='x', comm_id=5)", "TypeError: comm_id of a comm is text"),
    "comm_data": ("import comm; comm.create_comm(target_name='x', data=[1])", "TypeError: data of a comm's message"),
    "comm_metadata": (OPENED + "opened.send({}, metadata='m')", "TypeError: metadata of a comm's message"),
    "comm_text": (OPENED + "opened.send('text')", "TypeError: data of a comm's message is a dict, not str"),
    "comm_kind": (OPENED + "opened.publish_msg('result')", "TypeError: a comm sends comm_open"),
    "bundle": (
        "class A:\n    def _repr_mimebundle_(self, **_): return {'text/plain': 'x'}, [1]\nA()",
        "TypeError: metadata must be a dict",
    ),
    "name_of_a_class": (
        "class M(type):\n    __name__ = property(lambda _: 5)\nclass E(Exception, metaclass=M): pass\nraise E('so')",
        "E: so",
    ),
    "class_of_a_class": (
        "class M(type):\n    __name__ = property(lambda _: 1/0)\nclass E(Exception, metaclass=M): pass\nraise E('so')",
        "E: so",
    ),
    "unanswering": (
        "class E(Exception):\n    def __getattribute__(self, name): raise KeyError(name)\nraise E",
        "E: <the exception cannot be shown: it raised KeyError>",
    ),
    "exit_code": (
        "class I(int):\n    def __int__(self): return 'x'\nraise SystemExit(I(3))",
        "SystemExit: 3",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_is_an_error_of_the_code(session: AsyncSession, name: str) -> None:
    code, told = MISTAKES[name]
    await ok(session, "kept = 1")
    result = await run(session, code)
    assert result.verdict == "error"
    assert result.error is not None
    assert f"{result.error.name}: {result.error.message}".startswith(told)
    assert (await ok(session, "kept")).text == "1"
    await still_well(session)


async def test_whether_a_display_is_an_update_may_be_any_value(session: AsyncSession) -> None:
    await ok(
        session, "get_ipython().display_pub.publish({'text/plain': 'x'}, transient={'display_id': 5}, update='yes')"
    )
    await still_well(session)


async def test_comms_with_names_that_are_none_are_not_told(session: AsyncSession) -> None:
    await ok(session, OPENED + "opened.target_name = 5\ncomm.get_comm_manager().comms[5] = opened")
    assert await session.comms() == {}
    await still_well(session)


@pytest.mark.parametrize("payload", ["5", "{'source': 'x', 'deep': deep}"])
async def test_a_payload_that_no_message_can_carry_is_left_out(session: AsyncSession, payload: str) -> None:
    code = "deep = {}\nfor _ in range(100_000): deep = {'in': deep}\n"
    manager = "get_ipython().payload_manager"
    code += f"{manager}._payload = [{{'source': 'kept'}}, {payload}]"
    result = await session.run(code, payloads=True)
    assert result.verdict == "ok"
    assert [each["source"] for each in result.payload] == ["kept"]
    await still_well(session)


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "Large('x' * 70_000_000)"])
async def test_who_asks_for_what_raises_has_an_answer(session: AsyncSession, raised: str) -> None:
    code = "class Large(BaseException): pass\nclass A:\n    def __len__(self): raise "
    await ok(session, f"{code}{raised}\na = A()")
    async with asyncio.timeout(60):
        with pytest.raises(ExecutionError, match=raised.partition("(")[0]):
            await session.inspect("a", 1)
    await still_well(session)

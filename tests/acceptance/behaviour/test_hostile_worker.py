"""A worker that breaks the protocol is killed with `worker_lost`, and no other session notices."""

from __future__ import annotations

import ast
import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import HANG, begin, cell, gone, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession

PRELUDE = cell("""
    import gc, os, time
    from capsule_protocol import codec, framing, marks
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.limits import Limits
    def one(name): return next(o for o in gc.get_objects() if type(o).__name__ == name)
    link, outlet, publisher = one("Link"), one("Outlet"), one("Publisher")
    mine = publisher._names[publisher.serial]
    def write(data): link._shell._socket.sendall(data)
    def raw(*frames): write(b"".join(framing.pack(frames, Limits(buffers=1000))))
    def send(type, body, **more): raw(*codec.encode(Envelope(type, body, **more)))
    def result(**more):
        return {"verdict": "ok", "text": "", "data": {}, "metadata": {}, "execution_count": 1, "duration": 0.0,
                "fence": 0, **more}
    print("go", flush=True)
""")

FORGERIES = {
    "garbage": "raw(b'\\xff\\x00garbage', b'\\xc1\\xc1')",
    "one empty frame": "raw(b'')",
    "many frames": "raw(*[b'x'] * 50)",
    "a message without end": "write((2**63).to_bytes(8, 'big'))",
    "sizes that do not add up": "write((20).to_bytes(8, 'big') + (2).to_bytes(4, 'big') + bytes(16))",
    "no room for the table of frames": "write((5).to_bytes(8, 'big') + (2**32 - 1).to_bytes(4, 'big') + b'x')",
    "half a message and no more": "write((1000).to_bytes(8, 'big') + b'x'); link._shell.close()",
    "a socket that is shut": "link._control.close()",
    "valid msgpack of the wrong shape": "raw(b'\\x01', b'\\x80')",
    "a header without a body": "raw(codec.encode(Envelope('output', {}))[0])",
    "another major version": "raw(b'\\x97\\x63\\xa6output\\xa0\\xa0\\xa0\\x00\\xcb' + bytes(8), b'\\x80')",
    "a body nested too deeply": "raw(codec.encode(Envelope('display', {}))[0], b'\\x81\\xa1a' * 10000 + b'\\xc0')",
    "an extension type": "raw(codec.encode(Envelope('display', {}))[0], b'\\x81\\xa1a\\xd4\\x01\\x00')",
    "a frame over the limit": "raw(codec.encode(Envelope('display', {}))[0], b'\\x80' + bytes(2 * 2**20))",
    "frames over the limit together": "raw(codec.encode(Envelope('display', {}))[0], b'\\x80', *[bytes(2**19)] * 4)",
    "a display without its fields": "send('display', {'nothing': 1}, execution=mine)",
    "a result of the wrong types": "send('result', result(duration='long', data=5), execution=mine)",
    "a verdict that does not exist": "send('error', {'verdict': 'splendid', 'fence': 0}, execution=mine)",
    "the result of another execution": "send('result', result(), execution='x_AAAAAAAAAAAAAAAA')",
    "a display of an execution that never was": (
        "send('display', {'data': {}, 'metadata': {}, 'fence': 0}, execution='x_AAAAAAAAAAAAAAAA')"
    ),
    "two results": "[send('result', result(), execution=mine) for _ in range(2)]",
    "output behind its own result": (
        "send('result', result(), execution=mine)\n"
        "bundle = {'data': {}, 'metadata': {}, 'display_id': None, 'update': False, 'fence': 0}\n"
        "send('display', bundle, execution=mine)\n"
        "send('result', result(), execution=mine)"
    ),
    "a message that only clients send": "send('execute', {'code': '1'}, execution=mine)",
    "a second ready": "send('ready', {'pid': 1, 'python': '3', 'implementation': 'x', 'worker': 'x'})",
    "a second welcome": "send('welcome', {'version': '1.0', 'features': [], 'limits': {}, 'epoch': 1})",
    "the owner of a mark that does not exist": "os.write(1, marks.pack(outlet._token, 10**9, 0, 0))",
    "a fence that was there already": (
        "for fd in (1, 2): [os.write(fd, marks.pack(outlet._token, 1, 1, 1)) for _ in (1, 2)]"
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery_costs_the_worker_its_life_and_nobody_else_anything(
    client: AsyncClient, session: AsyncSession, name: str
) -> None:
    neighbour = await begin(session, "print('go', flush=True)\nimport threading; threading.Event().wait()")
    async with client.session(message_bytes=2**20) as victim:
        pid = (await victim.info()).pid
        running = await begin(victim, f"{PRELUDE}\n{FORGERIES[name]}\ntime.sleep(1000)")
        result = await running.result()
        assert result.stdout == "go\n"
        if result.verdict == "ok":  # a forged verdict counts for the forger's own execution; what follows does not
            result = await run(victim, "time.sleep(1000)")
        assert result.verdict == "worker_lost"
        assert result.error is not None
        assert result.error.code == "worker_lost"
        assert (await victim.info()).state == "dead"
        await gone(pid)
        await victim.restart()
        await still_well(victim)
    assert not neighbour.task.done()
    await session.interrupt()
    assert (await neighbour.result()).verdict == "interrupted"


@pytest.mark.anyio
async def test_a_session_cannot_speak_for_another(client: AsyncClient, session: AsyncSession) -> None:
    """Naming the neighbour's session and execution in a message ends the forger, not the neighbour's execution."""
    neighbour = await begin(session, "print('go', flush=True)\nimport threading; threading.Event().wait()")
    theirs = neighbour.events[0].execution_id
    async with client.session() as victim:
        forged = f"send('result', result(text='forged'), session={session.id!r}, execution={theirs!r})"
        running = await begin(victim, f"{PRELUDE}\n{forged}\ntime.sleep(1000)")
        assert (await running.result()).verdict == "worker_lost"
    assert not neighbour.task.done()
    await session.interrupt()
    assert (await neighbour.result()).verdict == "interrupted"
    await still_well(session)


@pytest.mark.anyio
async def test_a_verdict_out_of_turn_is_a_forgery(client: AsyncClient) -> None:
    """The worker has the next execution already, but only the one that runs can end."""
    async with client.session() as victim:
        forge = "send('result', result(text='forged'), execution=input())\ntime.sleep(1000)"
        running = victim.submit(f"{PRELUDE}\n{forge}", on_input=lambda _: waiting.execution_id)
        waiting = victim.submit("time.sleep(1000)")
        async with asyncio.timeout(HANG):
            assert (await waiting.result()).verdict == "worker_lost"
            assert (await running.result()).verdict == "worker_lost"


@pytest.mark.anyio
async def test_a_worker_cannot_reach_anothers_sockets(client: AsyncClient, session: AsyncSession) -> None:
    """Whatever it finds in the file system: connecting there is refused, or comes to nothing."""
    await ok(session, "kept = 1")
    async with client.session() as other:
        code = """
            import glob, os, socket, tempfile
            reached = []
            for path in glob.glob(tempfile.gettempdir() + "/**/*.sock", recursive=True):
                door = socket.socket(socket.AF_UNIX)
                try:
                    door.connect(path); door.sendall(b"\\xff" * 1000)
                except OSError:
                    pass
        """
        await run(other, code)
    assert (await ok(session, "kept")).text == "1"
    await still_well(session)


@pytest.mark.anyio
@pytest.mark.parametrize("stop", ["os.kill(os.getpid(), 19)", "import ctypes; ctypes.PyDLL(None).sleep(1000)"])
async def test_a_silent_worker_is_no_dead_one_and_can_be_killed(client: AsyncClient, stop: str) -> None:
    """Silence is only silence: the worker lives until somebody asks for its end."""
    async with client.session(interrupt_grace=0.3) as session:
        running = await begin(session, f"import os\nprint('go', flush=True)\n{stop}")
        assert not running.task.done()
        await session.interrupt()
        assert (await running.result()).verdict in {"killed", "interrupted"}
        await session.restart()
        await still_well(session)


PICKLES = {
    "as the value": "Trap()",
    "in a container": "{'a': [Trap()]}",
    "displayed": "display(Trap())",
    "in a bundle": "display({'text/plain': 'x', 'application/x-trap': str(Trap)}, raw=True)",
    "as a pickle": "import pickle; pickle.dumps(Trap())",
    "as an exception": "raise Trap()",
    "in the arguments of an exception": "raise ValueError(Trap(), Trap())",
    "in the namespace": "trap = Trap()",
}


@pytest.mark.anyio
@pytest.mark.parametrize("way", PICKLES)
async def test_nothing_of_the_users_is_unpickled_in_the_node(session: AsyncSession, tmp_path: Path, way: str) -> None:
    """Whoever loads this pickle leaves a file behind."""
    trace = tmp_path / "loaded"
    code = f"""
        class Trap(Exception):
            def __reduce__(self): return (open, ({str(trace)!r}, "w"))
        {PICKLES[way]}
    """
    await run(session, code)
    await session.namespace()
    await session.complete("trap.", 5)
    await still_well(session)
    assert not trace.exists()


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "recv_pyobj", "send_pyobj"}


@pytest.mark.parametrize("package", ["capsule", "capsule_protocol"])
def test_no_code_of_the_node_can_load_pickles(package: str) -> None:
    origin = importlib.import_module(package).__file__
    assert origin is not None
    for path in Path(origin).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name.split(".")[0] for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)}
            names |= {getattr(node, "module", None) or "", getattr(node, "attr", "")}
            assert not names & UNSAFE, f"{path}:{getattr(node, 'lineno', 0)}"


@pytest.mark.anyio
async def test_numbers_of_the_shared_page_are_not_trusted(client: AsyncClient, session: AsyncSession) -> None:
    """A worker may write anything into the page that it shares with the node."""
    async with client.session() as victim:
        code = """
            import gc
            outlet = next(o for o in gc.get_objects() if type(o).__name__ == "Outlet")
            for slot in range(0, 56, 8):
                outlet._page.set(slot, 2**64 - 1)
            print("after")
        """
        await run(victim, code, timeout=5)
        await victim.restart()
        await still_well(victim)
    await still_well(session)


@pytest.mark.anyio
async def test_a_flood_of_messages_is_bounded(client: AsyncClient, session: AsyncSession) -> None:
    """Thousands of displays from one cell reach a client in order while its neighbour goes on."""
    async with client.session() as loud:
        running = await begin(loud, "print('go', flush=True)\nfor n in range(3000): display(n)", until="go")
        for _ in range(5):
            await still_well(session)
        result = await running.result()
        assert [display.data["text/plain"] for display in result.displays] == [str(n) for n in range(3000)]

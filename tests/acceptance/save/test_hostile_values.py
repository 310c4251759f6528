"""Code of the user's that takes part in saving and restoring, and does what it likes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import capsule
import capsule_bridge
import capsule_pool
import capsule_protocol
from capsule import ExecutionError, Output, SessionError
from tests.acceptance.save.support import checkpoint, does

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession, Event

pytestmark = pytest.mark.anyio

REDUCE = "class C:\n    def __reduce__(self):\n        {}\nbefore = 1; c = C(); after = 2"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise ValueError('no\\nway')", "ValueError: no way"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt:"),
        ("return 5", "PicklingError: __reduce__ must return a string or tuple"),
        ("return 'no such name'", "PicklingError"),
        ("return len, ('x' * 3, open('/etc/hostname'))", "an open file cannot be saved"),
        ("raise type('E', (Exception,), {'__str__': lambda e: 1 / 0})", "E: it cannot say why"),
        ("raise type('E', (Exception,), {'__str__': lambda e: '\\ud800' * 2000})", "E: "),
        ("return self.__reduce__()", "PicklingError: Could not pickle object as excessively deep recursion"),
        ("input()", "EOFError: "),
    ],
)
async def test_a_reduce_that_fails_costs_its_own_name_only(
    session: AsyncSession, other: AsyncSession, statement: str, reason: str
) -> None:
    await does(session, REDUCE.format(statement))
    report = await session.save()
    assert [name.name for name in report.saved] == ["C", "before", "after"]
    (left_out,) = report.left_out
    assert left_out.reason.startswith(reason)
    assert len(left_out.reason) <= 310
    assert report.data is not None
    assert (await other.restore(report.data)).restored == ["C", "before", "after"]
    assert await does(session, "before + after") == "3"


async def test_what_it_prints_is_background_output_and_not_in_the_file(client: AsyncClient) -> None:
    heard: list[Event] = []
    async with client.session(on_background=heard.append) as session:
        await does(
            session,
            "import os, sys\n"
            + REDUCE.format("print('out'); print('err', file=sys.stderr); os.write(1, b'raw'); return int, ()"),
        )
        report = await session.save()
        assert not report.left_out
        assert report.data is not None
        assert (await session.restore(report.data)).restored == ["os", "sys", "C", "before", "after", "c"]
        assert await does(session, "c") == "0"
    told = [event for event in heard if isinstance(event, Output)]
    assert "".join(event.text for event in told if event.stream == "stdout") == "out\nraw"
    assert "".join(event.text for event in told if event.stream == "stderr") == "err\n"
    assert {event.sequence for event in told} == {0}


async def test_one_that_hangs_is_ended_by_its_time_limit(session: AsyncSession) -> None:
    await does(session, "import time\n" + REDUCE.format("time.sleep(600)"))
    with pytest.raises(ExecutionError) as caught:
        await session.save(timeout=0.2)
    assert caught.value.code == "execution_timeout"
    assert await does(session, "before") == "1"
    assert (await session.save(names=["before"])).saved


async def test_one_that_hangs_is_interrupted(session: AsyncSession) -> None:
    """By anybody, as a cell is; and one that makes another error of that does not go on for long."""
    await does(
        session,
        "import time\n"
        + REDUCE.format("""
        print('here', flush=True)
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            raise ValueError('never')"""),
    )
    saving = asyncio.ensure_future(session.save())
    while not await session.interrupt():
        await asyncio.sleep(0.01)
    with pytest.raises(ExecutionError) as caught:
        await saving
    assert caught.value.code == "execution_interrupted"
    assert await does(session, "before") == "1"


async def test_one_that_cannot_be_interrupted_costs_the_worker(client: AsyncClient) -> None:
    async with client.session(interrupt_grace=0.2) as session:
        await does(
            session,
            "import signal, time\n"
            + REDUCE.format("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); time.sleep(600)"),
        )
        with pytest.raises(ExecutionError) as caught:
            await session.save(timeout=0.2)
        assert caught.value.code == "execution_timeout"
        with pytest.raises(SessionError) as dead:
            await session.save()
        assert dead.value.code == "session_dead"
        await session.restart()
        assert (await session.save()).saved == []


async def test_one_that_ends_the_process_is_a_crash(session: AsyncSession) -> None:
    await does(session, "import os\n" + REDUCE.format("os._exit(7)"))
    with pytest.raises(ExecutionError, match="exited with code 7") as caught:
        await session.save()
    assert caught.value.code == "execution_crashed"


async def test_one_without_end_comes_to_the_bound(session: AsyncSession) -> None:
    """`max_checkpoint_bytes` of the node."""
    await does(session, "import itertools\n" + REDUCE.format("return list, (), None, itertools.repeat('x' * 65536)"))
    with pytest.raises(SessionError, match="max_checkpoint_bytes=33554432") as caught:
        await session.save()
    assert caught.value.code == "checkpoint_too_large"
    assert (await session.save(names=["before"])).saved


async def test_a_disk_that_takes_no_more_is_no_reason_to_leave_names_out(session: AsyncSession) -> None:
    await does(
        session,
        "import resource\n_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))\nx = 'x' * 1_000_000; y = 1",
    )
    with pytest.raises(SessionError, match="cannot be written: File too large") as caught:
        await session.save()
    assert caught.value.code == "checkpoint_failed"
    assert (await session.save(names=["y"])).saved


async def test_the_worker_keeps_nothing_of_what_was_saved(session: AsyncSession) -> None:
    """Values that are deleted later are gone, also those that were left out, or of a save that failed."""
    await does(
        session,
        "import gc, threading, weakref\nclass C: pass\nc = C(); c.lock = threading.Lock()\nd = C(); d.x = 'x' * 10\n"
        "alive = weakref.WeakSet([c, d])",
    )
    assert [name.name for name in (await session.save(names=["c", "d"])).left_out] == ["c"]
    await does(session, "big = [d, 'x' * 2**26]")
    with pytest.raises(SessionError, match="max_checkpoint_bytes"):
        await session.save(names=["c", "d", "big"])
    await does(session, "del c, d, big; gc.collect(); None")
    assert await does(session, "len(alive)") == "0"


async def test_one_that_forks_leaves_the_file_whole(session: AsyncSession, other: AsyncSession) -> None:
    await does(
        session,
        "import os\n"
        + REDUCE.format("""
        if (pid := os.fork()): os.waitpid(pid, 0)
        return int, ()"""),
    )
    report = await session.save()
    assert report.data is not None
    assert (await other.restore(report.data)).restored == ["os", "C", "before", "after", "c"]


@pytest.mark.parametrize("statement", ["raise ValueError('no')", "raise SystemExit", "raise KeyboardInterrupt"])
async def test_a_value_that_cannot_be_restored_leaves_all_names_as_they_were(
    session: AsyncSession, other: AsyncSession, statement: str
) -> None:
    data = await checkpoint(
        session, f"a = 'new'\nclass C:\n    def __setstate__(self, state): {statement}\nc = C(); c.x = 1; z = 'new'"
    )
    await does(other, "a = 'old'; z = 'old'")
    with pytest.raises(
        SessionError, match=f"the value of 'c' cannot be restored: {statement[6:].split('(', maxsplit=1)[0]}"
    ) as caught:
        await other.restore(data)
    assert caught.value.code == "checkpoint_failed"
    assert await does(other, "a, z, 'c' in globals(), __builtins__.len('x')") == "('old', 'old', False, 1)"
    assert (await other.restore(data, names=["a"])).restored == ["a"]


async def test_restoring_can_be_ended_too(session: AsyncSession, other: AsyncSession) -> None:
    data = await checkpoint(
        session,
        "import time\na = 'new'\nclass C:\n    def __setstate__(self, state): time.sleep(600)\nc = C(); c.x = 1",
    )
    await does(other, "a = 'old'")
    with pytest.raises(ExecutionError) as caught:
        await other.restore(data, timeout=0.2)
    assert caught.value.code == "execution_timeout"
    assert await does(other, "a, 'c' in globals()") == "('old', False)"


TRICKS = {
    "names": "cloudpickle = pickle = dict = list = len = isinstance = str = open = memoryview = None",
    "functions": "import pickle\npickle.dumps = pickle.loads = pickle.dump = pickle.load = None",
    "modules": "import sys\nsys.modules['cloudpickle'] = sys.modules['cloudpickle.cloudpickle'] = object()",
    "a file": "open('cloudpickle.py', 'w').write('raise SystemExit'); import sys; sys.path.insert(0, '.')",
    "folders": "import os; os.chdir('/')",
    "reducers": "import copyreg\ncopyreg.pickle(complex, lambda z: (complex, (z.real, z.imag)))",
}


@pytest.mark.parametrize("trick", TRICKS)
async def test_tricks_of_the_code_do_not_keep_it_from_being_saved(
    session: AsyncSession, other: AsyncSession, trick: str
) -> None:
    await does(session, f"x = {{'a': [1j]}}\ndef f(): return x\n{TRICKS[trick]}")
    report = await session.save(names=["x", "f"])
    assert [name.name for name in report.saved] == ["f", "x"]
    assert report.data is not None
    await does(other, TRICKS[trick])
    assert (await other.restore(report.data, names=["x", "f"])).restored == ["x", "f"]
    assert await does(other, "f() is x, x") == "(True, {'a': [1j]})"


async def test_a_worker_that_lies_about_what_it_saved_gets_no_signature(client: AsyncClient) -> None:
    """The file that it wrote is another one by the time the node looks at it."""
    async with client.session() as session:
        await does(
            session,
            "import os, threading, time\n"
            "box = os.path.dirname(os.environ['SESSION_FILES'])\n"
            "from capsule_kernels.saving import Saving\n"
            "run = Saving.run\n"
            "def lying(self, names, limit):\n"
            "    report = run(self, names, limit)\n"
            "    with open(self._path, 'ab') as file: file.write(b'more')\n"
            "    return report\n"
            "Saving.run = lying\n",
        )
        with pytest.raises(SessionError, match="has changed what it had saved") as caught:
            await session.save()
        assert caught.value.code == "checkpoint_failed"
        await does(
            session,
            "def gone(self, names, limit):\n"
            "    report = run(self, names, limit)\n"
            "    os.unlink(self._path); os.symlink('/etc/hostname', self._path)\n"
            "    return report\n"
            "Saving.run = gone",
        )
        with pytest.raises(SessionError) as linked:
            await session.save()
        assert linked.value.code == "file_refused"
        await does(session, "Saving.run = lambda *a: {'names': 7}")
        with pytest.raises(SessionError, match="report cannot be read"):
            await session.save()
        await does(session, "Saving.run = run")
        assert (await session.save()).saved


async def test_only_a_session_that_is_saved_pays_for_cloudpickle(session: AsyncSession) -> None:
    code = (
        "import sys; sorted(name for name in sys.modules if 'cloudpickle' in name or name == 'capsule_kernels.pickles')"
    )
    assert await does(session, code) == "[]"
    await session.save()
    assert await does(session, code) == "['capsule_kernels._cloudpickle', 'capsule_kernels.pickles']"


def test_the_node_cannot_unpickle() -> None:
    """None of its modules imports what could."""
    imports = re.compile(r"^\s*(?:import|from)\s+(?:cloud|_)?(?:pickle|dill|marshal|shelve|joblib)\b", re.MULTILINE)
    assert imports.search("    from pickle import loads")
    packages = (capsule, capsule_protocol, capsule_pool, capsule_bridge)
    files = [file for package in packages for file in Path(package.__path__[0]).rglob("*.py")]
    assert len(files) > 100
    assert [file for file in files if imports.search(file.read_text(encoding="utf-8"))] == []

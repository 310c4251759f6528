"""What comes back, and in which form; what cannot, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError
from tests.acceptance.save.support import checkpoint, does

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio


async def test_plain_data_comes_back_through_a_file(session: AsyncSession, other: AsyncSession, tmp_path: Path) -> None:
    await does(session, "number = 2**80; words = {'a': [1.5, None, b'x'], 'ü': {frozenset({1})}}; _mine = (1, 'é')")
    path = tmp_path / "state"
    report = await session.save(path)
    assert report.path == str(path)
    assert (report.data, report.size) == (None, path.stat().st_size)
    assert [(name.name, name.type) for name in report.saved] == [
        ("number", "int"),
        ("words", "dict"),
        ("_mine", "tuple"),
    ]
    assert not report.left_out
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["state"]

    restored = await other.restore(path)
    assert restored.restored == ["number", "words", "_mine"]
    assert restored.replaced == []
    assert await does(other, "number == 2**80, words, _mine") == (
        "(True, {'a': [1.5, None, b'x'], 'ü': {frozenset({1})}}, (1, 'é'))"
    )


async def test_two_names_for_one_object_stay_so(session: AsyncSession, other: AsyncSession) -> None:
    """Also when a name between them is left out, of which much was written already."""
    data = await checkpoint(
        session,
        "a = [1]; b = a; c = {'a': a}\n"
        "class Node: pass\n"
        "n = Node(); n.me = n; n.list = a\n"
        "bad = [a, ['fresh'], bytes(300_000), last := ['last'], (x for x in a)]\n"
        "fresh = bad[1]; again = [last, fresh]",
    )
    assert len(data) < 100_000
    await other.restore(data)
    assert await does(other, "a is b, c['a'] is a, n.me is n, n.list is a, 'bad' in globals()") == (
        "(True, True, True, True, False)"
    )
    assert await does(other, "fresh, again, again[1] is fresh, again[0] is last") == (
        "(['fresh'], [['last'], ['fresh']], True, True)"
    )


async def test_functions_and_classes_live_in_the_namespace_that_they_come_into(
    session: AsyncSession, other: AsyncSession
) -> None:
    data = await checkpoint(
        session,
        "import enum, dataclasses\n"
        "count = 1\n"
        "def bump(by=2):\n    'Adds.'\n    global count\n    count += by\n    return count\n"
        "def twice(): return bump() + bump()\n"
        "def adder(n): return lambda x: x + n\n"
        "add = adder(5)\n"
        "def fact(n): return 1 if n < 2 else n * fact(n - 1)\n"
        "class Base:\n    def who(self): return 'base'\n"
        "class Kind(Base):\n    level = 3\n    def who(self): return super().who() + str(count)\n"
        "kind = Kind()\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    y: int = 2\n"
        "point = Point(1)\n"
        "class Colour(enum.Enum):\n    RED = 1\n"
        "red = Colour.RED\n"
        "async def later(): return count\n"
        "def gen():\n    yield count\n",
    )
    await does(other, "count = 100")
    assert (await other.restore(data)).replaced == ["count"]
    assert await does(other, "bump(), count, twice(), count") == "(3, 3, 12, 7)"
    await does(other, "count = 10")
    assert (
        await does(other, "bump.__globals__ is globals(), bump.__doc__, add(1), fact(5)") == "(True, 'Adds.', 6, 120)"
    )
    assert await does(other, "kind.who(), isinstance(kind, Kind), issubclass(Kind, Base)") == "('base10', True, True)"
    assert await does(other, "point == Point(1), red is Colour.RED, await later(), list(gen())") == (
        "(True, True, 10, [10])"
    )
    assert await does(other, "def fact(n): return -1\nfact(3)") == "-1"
    assert await does(other, "import builtins; __builtins__ is builtins") == "True"


async def test_modules_come_back_by_name(session: AsyncSession, other: AsyncSession) -> None:
    data = await checkpoint(
        session,
        "import math, os.path as paths, xml.etree.ElementTree\n"
        "from collections import Counter\n"
        "def parse(text): return xml.etree.ElementTree.fromstring(text).tag\n",
    )
    await other.restore(data)
    assert await does(other, "math.floor(1.5), paths.basename('/a/b'), Counter('aab')['a'], parse('<p/>')") == (
        "(1, 'b', 2, 'p')"
    )


async def test_arrays_and_frames_come_back(session: AsyncSession, other: AsyncSession) -> None:
    data = await checkpoint(
        session,
        "import numpy as np, pandas as pd\n"
        "a = np.arange(3_000_000); frame = pd.DataFrame({'x': [1, 2], 'y': ['a', None]})\n"
        "a[7] = -1",
    )
    assert len(data) > 2**24
    report = await other.restore(data)
    assert report.other_versions == {}
    assert await does(other, "bool(a.sum() == np.arange(3_000_000).sum() - 8), frame.shape, list(frame['y'])[0]") == (
        "(True, (2, 2), 'a')"
    )


async def test_some_names_bring_what_their_functions_use(session: AsyncSession, other: AsyncSession) -> None:
    await does(
        session,
        "import json\nrate = 3; unused = 4; lock = __import__('threading').Lock()\n"
        "def helper(): return rate\n"
        "def f(): return [json.dumps(helper()) for _ in range(1)], lock\n",
    )
    report = await session.save(names=["f"])
    assert [name.name for name in report.saved] == ["json", "f", "helper", "rate"]
    assert [name.name for name in report.left_out] == ["lock"]
    assert report.data is not None
    await other.restore(report.data)
    assert await does(other, "helper(), 'unused' in globals()") == "(3, False)"
    await does(other, "rate = helper = f = None")
    assert (await other.restore(report.data, names=["rate"])).restored == ["rate"]
    assert await does(other, "rate, helper, f") == "(3, None, None)"


async def test_values_are_written_once_though_functions_bring_more(session: AsyncSession, other: AsyncSession) -> None:
    await does(
        session,
        "times = []; rate = 3; text = 'x' * 1000\n"
        "class Large:\n"
        "    def __reduce__(self): times.append(1); return int, ('7',)\n"
        "large = Large()\n"
        "def first(): return second() + len(text)\n"
        "def second(): return rate + third\n"
        "third = Large()\n",
    )
    report = await session.save(names=["large", "first"])
    assert [name.name for name in report.saved] == ["first", "second", "text", "rate", "large", "third"]
    assert await does(session, "len(times)") == "2"  # once each
    await other.restore(report.data or b"")
    assert await does(other, "large, first()") == "(7, 1010)"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["nowhere"], "does not know"),
        (["In"], "the session's own"),
        (["_"], "the session's own"),
        (["x", ""], "1 to 200 characters"),
        ("x", "is a str"),
        (7, "is a int"),
        ([7], "has 7"),
    ],
    ids=str,
)
async def test_names_that_cannot_be_saved_are_told(session: AsyncSession, names: list[str], why: str) -> None:
    await does(session, "x = 1")
    with pytest.raises(ArgumentError, match=why) as caught:
        await session.save(names=names)
    assert caught.value.argument == "names"


async def test_names_that_were_not_saved_are_told(session: AsyncSession) -> None:
    data = await checkpoint(session, "x = 1")
    with pytest.raises(ArgumentError, match="'y', which was not saved"):
        await session.restore(data, names=["y"])


async def test_what_the_session_itself_needs_survives(session: AsyncSession, other: AsyncSession) -> None:
    """The namespace is added to, and never replaced."""
    data = await checkpoint(session, "x = 'new'; Out['no'] = 1; exit = 'mine'; _5 = 'mine'; __file__ = 'mine'")
    before = await does(other, "mine = 1; x = 'old'; id(globals())")
    report = await other.restore(data)
    assert (report.restored, report.replaced) == (["x"], ["x"])
    assert await does(other, "id(globals())") == before
    assert await does(
        other, "mine, x, In[1], type(Out).__name__, 'no' in Out, callable(exit), '__file__' in globals()"
    ) == ("(1, 'new', \"mine = 1; x = 'old'; id(globals())\", 'dict', False, True, False)")
    assert await does(other, "Out[2] == id(globals())") == "True"


async def test_methods_that_run_while_values_are_read_find_what_they_use(
    session: AsyncSession, other: AsyncSession
) -> None:
    """Whichever was defined first, and also when only some names are saved."""
    code = (
        "late = {}; seed = None\n"
        "class Key:\n"
        "    def __hash__(self): return math.floor(seed) + salt()\n"
        "    def __setstate__(self, state): self.text = str(seed)\n"
        "def salt(): return 3\n"
        "import math\n"
        "seed = 1.5; key = Key(); key.x = 1; late[key] = key\n"
    )
    data = await checkpoint(session, code)
    await other.restore(data)
    assert await does(other, "late[key] is key, key.text, hash(key)") == "(True, '1.5', 4)"
    some = await session.save(names=["late"])
    assert [name.name for name in some.saved] == ["math", "salt", "seed", "late"]
    await does(other, "del late, key, seed, math, salt")
    await other.restore(some.data or b"", names=["late"])
    assert (
        await does(other, "next(iter(late)).text, 'seed' in globals(), 'math' in globals()") == "('1.5', False, False)"
    )


async def test_it_can_be_restored_into_the_session_that_it_is_of(session: AsyncSession) -> None:
    data = await checkpoint(session, "class C:\n    def f(self): return 1\nc = C(); x = [1]; y = x")
    await does(session, "x.append(2); y = None; del c")
    report = await session.restore(data)
    assert set(report.replaced) == {"C", "x", "y"}
    assert await does(session, "x, x is y, isinstance(c, C), c.f()") == "([1], True, True, 1)"


UNSAVABLE = {
    "file": ("open('/etc/hostname')", "an open file cannot be saved", "v['deep'][1]"),
    "binary file": ("open('/etc/hostname', 'rb')", "an open file cannot be saved", "v['deep'][1]"),
    "socket": ("__import__('socket').socket()", "cannot pickle 'socket' object", "v['deep'][1]"),
    "lock": ("__import__('threading').Lock()", "cannot pickle '_thread.lock' object", "v['deep'][1]"),
    "generator": ("(x for x in [])", "cannot pickle 'generator' object", "v['deep'][1]"),
    "thread": ("__import__('threading').Thread()", "a thread cannot be saved", "v['deep'][1]"),
    "frame": ("__import__('sys')._getframe()", "cannot pickle 'frame' object", "v['deep'][1]"),
    "session": ("get_ipython()", "the session itself cannot be saved", "v['deep'][1]"),
    "task": ("__import__('asyncio').ensure_future(__import__('asyncio').sleep(0))", "cannot pickle", ""),
    "process": (
        "__import__('subprocess').Popen(['true'])",
        "cannot pickle '_thread.lock'",
        "v['deep'][1]._waitpid_lock",
    ),
    "database": ("__import__('sqlite3').connect(':memory:')", "cannot pickle 'sqlite3.Connection'", "v['deep'][1]"),
    "too deep": ("deep", "RecursionError|recursion", ""),
}


@pytest.mark.parametrize("kind", UNSAVABLE)
async def test_what_cannot_be_saved_is_left_out_with_the_reason(
    session: AsyncSession, other: AsyncSession, kind: str
) -> None:
    expression, reason, where = UNSAVABLE[kind]
    await does(
        session,
        "deep = []\nfor _ in range(100_000): deep = [deep]\n" if kind == "too deep" else "",
    )
    data = await checkpoint(session, f"before = 1; v = {{'deep': [1, {expression}]}}; after = 2; deep = None; None")
    report = await session.save(names=["before", "v", "after"])
    (left_out,) = report.left_out
    assert (left_out.name, left_out.type) == ("v", "dict")
    assert __import__("re").search(reason, left_out.reason), left_out.reason
    assert left_out.where.startswith(where)
    restored = await other.restore(data)
    assert [name for name in restored.restored if name != "deep"] == ["before", "after"]
    assert [one.name for one in restored.left_out] == ["v"]

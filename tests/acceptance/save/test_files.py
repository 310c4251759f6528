"""What is loaded: what this node has signed for this principal, as it is now; all else is refused unread."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, AsyncClient, SessionError
from capsule.node.auth.keystore import KeyStore
from capsule.node.checkpoints.sealing import MAGIC, seal, unseal
from tests.acceptance.auth.support import Guarded
from tests.acceptance.save.support import checkpoint, does

if TYPE_CHECKING:
    from capsule import AsyncSession

pytestmark = pytest.mark.anyio


class Bomb:
    """Pickled, it is a file that appears when somebody reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def forged(folder: Path, key: bytes, values: bytes, **fields: Any) -> bytes:
    """A checkpoint of anybody's making, in the right form."""
    manifest = {
        "created": 1.0,
        "owner": "",
        "session": "s",
        "environment": "default",
        "python": "3.11.0",
        "implementation": "cpython",
        "capsule": "0",
        "size": len(values),
        "has_code": False,
        "names": [{"name": "x", "type": "int", "size": len(values)}],
        "left_out": [],
        "packages": {},
    }
    (folder / "values").write_bytes(values)
    with (folder / "values").open("rb") as source, (folder / "forged").open("wb") as target:
        seal(key, manifest | fields, source.fileno(), target.fileno())
    return (folder / "forged").read_bytes()


def again(folder: Path, key: bytes, data: bytes, **fields: Any) -> bytes:
    """The same values with another manifest, signed with this key."""
    (folder / "given").write_bytes(data)
    with (folder / "given").open("rb") as file:
        manifest = unseal(key, file.fileno())
    values = data[len(MAGIC) : len(MAGIC) + manifest.size]
    return forged(folder, key, values, **(manifest.model_dump(exclude={"sha256"}) | fields))


@pytest.fixture
def secret(client: AsyncClient, request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The key of the client's node."""
    if "library" not in request.node.callspec.id:
        monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    return KeyStore().checkpoint_key()


async def refusal(session: AsyncSession, data: bytes, code: str = "checkpoint_refused", **options: Any) -> SessionError:
    """What is said against a file; nothing has happened to the session."""
    await does(session, "x = 'old'")
    with pytest.raises(SessionError) as caught:
        await session.restore(data, **options)
    assert caught.value.code == code, caught.value
    assert await does(session, "x") == "'old'"
    return caught.value


async def test_what_nobody_has_signed_is_never_read(session: AsyncSession, tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    values = pickle.dumps(["x", Bomb(exploded)])
    pickle.loads(values)
    exploded.unlink()  # it works
    for data in (values, b"", b"\x80", MAGIC[:-1], b"x" * 1000, b"C" + values):
        error = await refusal(session, data)
        assert error.details["reason"] == "not_a_checkpoint"
    for data in (MAGIC, MAGIC + values, MAGIC + bytes(1000), MAGIC + b"\xff" * 1000):
        error = await refusal(session, data)
        assert error.details["reason"] == "changed"
    error = await refusal(session, forged(tmp_path, b"k" * 32, values))
    assert error.details["reason"] == "other_key"
    assert "another node" in error.message
    assert not exploded.exists()


async def test_a_changed_byte_is_noticed_wherever_it_is(session: AsyncSession) -> None:
    data = await checkpoint(session, "x = list(range(1000)); y = 'text'")
    places = {0, 15, 16, 17, 500, len(data) // 2, len(data) - 1, len(data) - 4, len(data) - 5, len(data) - 36}
    places |= {len(data) - 44, len(data) - 45, len(data) - 100, len(data) - 400}
    for place in sorted(places):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        error = await refusal(session, changed)
        assert error.details["reason"] in {"changed", "other_key", "not_a_checkpoint"}, place  # the node says so itself
    assert set((await session.restore(data)).restored) == {"x", "y"}
    assert await does(session, "y") == "'text'"


async def test_a_file_that_is_not_whole_or_has_more_is_refused(session: AsyncSession) -> None:
    data = await checkpoint(session, "x = list(range(1000))")
    for size in (1, 16, 20, 59, 60, 61, len(data) // 2, len(data) - 44, len(data) - 1):
        await refusal(session, data[:size])
    for more in (data + b"\0", data + data, data[:16] + b"." + data[16:]):
        await refusal(session, more)


async def test_another_nodes_file_is_refused(
    client: AsyncClient, session: AsyncSession, place: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path))
        async with AsyncClient() as elsewhere, elsewhere.session() as other:
            data = await checkpoint(other, "x = 1")
    error = await refusal(session, data)
    assert error.details["reason"] == "other_key"


async def test_a_file_of_another_principal_is_refused(
    client: AsyncClient, session: AsyncSession, secret: bytes, tmp_path: Path
) -> None:
    """Or else whoever can run code could make a file that runs it in the session of somebody else."""
    data = await checkpoint(session, "x = 1")
    error = await refusal(session, again(tmp_path, secret, data, owner="mallory"))
    assert error.details["reason"] == "other_principal"


async def test_principals_of_one_node_cannot_load_each_others_files(node: Guarded) -> None:
    bob = node.new("bob", "--role", "operator")
    async with AsyncClient(node.tcp, key=bob) as theirs, theirs.session() as from_here:
        data = await checkpoint(from_here, "x = 1")
        async with AsyncClient(node.ipc) as ours, ours.session() as into:
            await refusal(into, data)
        async with theirs.session() as own:
            assert (await own.restore(data)).restored == ["x"]


async def test_another_interpreter_gets_data_if_asked_to_and_never_code(
    session: AsyncSession, secret: bytes, tmp_path: Path
) -> None:
    data = await checkpoint(session, "x = 'new'")
    foreign = again(tmp_path, secret, data, python="3.9.7")
    error = await refusal(session, foreign, "checkpoint_mismatch")
    assert "3.9.7" in error.message
    assert "allow_other_interpreter" in error.hint
    assert (await session.restore(foreign, allow_other_interpreter=True)).restored == ["x"]
    minor = (await does(session, "import sys; '.'.join(map(str, sys.version_info[:2]))")).strip("'")
    assert (await session.restore(again(tmp_path, secret, data, python=f"{minor}.99"))).restored == ["x"]
    code = again(tmp_path, secret, await checkpoint(session, "x = lambda: 1"), python="3.9.7")
    error = await refusal(session, code, "checkpoint_mismatch", allow_other_interpreter=True)
    assert "functions or classes" in error.message
    pypy = again(tmp_path, secret, data, implementation="pypy")
    assert "pypy" in (await refusal(session, pypy, "checkpoint_mismatch")).message


async def test_missing_packages_are_told_before_anything_is_read(
    session: AsyncSession, secret: bytes, tmp_path: Path
) -> None:
    exploded = tmp_path / "exploded"
    data = forged(
        tmp_path,
        secret,
        pickle.dumps(["x", Bomb(exploded)]),
        owner=await owner_of(session, secret, tmp_path),
        python=(await does(session, "import sys; sys.version.split()[0]")).strip("'"),
        packages={"numpy": "0.1", "no_such_package": "1.2.3", "nor_this": ""},
    )
    error = await refusal(session, data, "checkpoint_mismatch")
    assert error.details["missing"] == ["no_such_package", "nor_this"]
    assert "no_such_package 1.2.3, nor_this" in error.message
    assert not exploded.exists()


async def test_names_of_the_session_itself_are_not_set_even_if_they_are_in_the_file(
    session: AsyncSession, secret: bytes, tmp_path: Path
) -> None:
    """What a worker writes is signed unread: one that was tampered with may have written any name."""
    names = ["In", "x", "__builtins__", "get_ipython", "_"]
    data = forged(
        tmp_path,
        secret,
        b"".join(pickle.dumps([name, "new"]) for name in names),
        owner=await owner_of(session, secret, tmp_path),
        python=(await does(session, "import sys; sys.version.split()[0]")).strip("'"),
        names=[{"name": name, "type": "str", "size": 1} for name in names],
    )
    assert (await session.restore(data)).restored == ["x"]
    assert await does(session, "x, type(In).__name__, type(__builtins__).__name__, callable(get_ipython)") == (
        "('new', 'list', 'module', True)"
    )


async def test_other_versions_of_packages_are_told(session: AsyncSession, secret: bytes, tmp_path: Path) -> None:
    data = await checkpoint(session, "import numpy; x = numpy.arange(3)")
    there = await does(session, "numpy.__version__")
    report = await session.restore(again(tmp_path, secret, data, packages={"numpy": "0.1"}))
    assert report.other_versions == {"numpy": ("0.1", there.strip("'"))}


async def test_a_file_of_a_later_kind_is_refused(session: AsyncSession, secret: bytes, tmp_path: Path) -> None:
    import hmac
    import json
    import struct

    data = await checkpoint(session, "x = 1")
    length = struct.unpack(">I", data[-4:])[0]
    manifest = json.loads(data[-44 - length : -44]) | {"version": 2}
    later = json.dumps(manifest).encode()
    signature = hmac.digest(secret, MAGIC + later, "sha256")
    end = data[-44:-36] + signature + struct.pack(">I", len(later))
    error = await refusal(session, data[: -44 - length] + later + end)
    assert error.details["reason"] == "unknown_version"


async def test_a_file_over_the_bound_is_refused(session: AsyncSession) -> None:
    error = await refusal(session, bytes(2**25 + 1), "checkpoint_too_large")
    assert "max_checkpoint_bytes=33554432" in error.message


async def test_the_report_says_of_what_kind_it_is(session: AsyncSession) -> None:
    await does(session, "x = 1")
    assert not (await session.save()).has_code
    await does(session, "def f(): pass")
    report = await session.save()
    assert report.has_code
    assert set(report.packages) == {"cloudpickle"}
    assert report.data is not None
    assert (report.path, report.size) == (None, len(report.data))


@pytest.mark.parametrize("path", ["", "nowhere/state", "."])
async def test_a_path_that_cannot_be_written_is_told_before_anything_runs(
    session: AsyncSession, tmp_path: Path, path: str
) -> None:
    await does(
        session, "ran = False\nclass C:\n    def __reduce__(self):\n        global ran\n        ran = True\nc = C()"
    )
    with pytest.raises(ArgumentError) as caught:
        await session.save(tmp_path / path)
    assert caught.value.argument == "path"
    assert await does(session, "ran") == "False"
    assert list(tmp_path.iterdir()) == []


async def test_a_save_that_fails_leaves_the_file_that_was_there(session: AsyncSession, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("before")
    await does(session, "import os\nclass C:\n    def __reduce__(self): os._exit(1)\nc = C()")
    with pytest.raises(Exception, match="exited with code 1"):
        await session.save(path)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


async def test_what_is_no_file_is_told(session: AsyncSession, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError) as caught:
        await session.restore(tmp_path / "nowhere")
    assert caught.value.argument == "source"


async def owner_of(session: AsyncSession, key: bytes, folder: Path) -> str:
    """Whose the session is, as its checkpoints say."""
    report = await session.save(names=[])
    (folder / "mine").write_bytes(report.data or b"")
    with (folder / "mine").open("rb") as file:
        return unseal(key, file.fileno()).owner

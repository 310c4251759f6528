"""A call that is cancelled, or goes over a cap, leaves nothing behind, at whatever await it is."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from capsule.broker.sdk import CHUNK_BYTES
from capsule.providers.files import FilesProvider, drafts
from capsule_protocol.errors import CapabilityFailed
from tests.acceptance.providers.files.conftest import open_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.acceptance.providers.calls import Answer, Caller

pytestmark = pytest.mark.anyio

OLD = b"old"
NEW = 5 * CHUNK_BYTES * b"n"


@pytest.fixture(autouse=True)
def walk() -> None:
    """As this machine walks: it makes no difference here."""


@pytest.fixture(params=["nameless", "named"])
def draft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are gathered without a name, and where a file system cannot do that."""
    monkeypatch.setattr(drafts, "_CAN_BE_UNNAMED", request.param == "nameless")


@pytest.fixture(autouse=True)
def old(root: Path) -> None:
    (root / "old").write_bytes(OLD)
    (root / "big").write_bytes(NEW)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def ended(task: asyncio.Task[Answer]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task


class Stuck:
    """A body that stops for ever after some chunks, and tells when it does."""

    def __init__(self, chunks: int) -> None:
        self.reached = asyncio.Event()
        self._chunks = chunks

    async def body(self) -> AsyncIterator[bytes]:
        for _ in range(self._chunks):
            yield bytes(CHUNK_BYTES)
        await self.stop()

    async def stop(self, _chunk: bytes = b"") -> None:
        self.reached.set()
        await asyncio.Event().wait()


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("chunks", [0, 1, 3])
@pytest.mark.parametrize("path", ["data/old", "data/new"])
@pytest.mark.parametrize("operation", ["write", "append"])
async def test_nothing_is_left_of_a_body_that_does_not_end(
    files: Caller, root: Path, operation: str, path: str, chunks: int
) -> None:
    before = names(root)
    stuck = Stuck(chunks)
    task = asyncio.create_task(files(operation, stuck.body(), path=path))
    await stuck.reached.wait()
    task.cancel()
    await ended(task)
    assert names(root) == before
    assert (root / "old").read_bytes() == OLD


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("path", ["data/old", "data/new"])
@pytest.mark.parametrize("operation", ["write", "append"])
async def test_nothing_is_left_of_a_body_that_is_too_large(
    files: Caller, root: Path, operation: str, path: str
) -> None:
    before = names(root)
    files.limits = {"request_bytes": 3 * CHUNK_BYTES}
    with pytest.raises(CapabilityFailed, match="capability_too_large"):
        await files(operation, NEW, path=path)
    assert names(root) == before
    assert (root / "old").read_bytes() == OLD


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("path", ["data/old", "data/new"])
@pytest.mark.parametrize("operation", ["write", "append"])
async def test_nothing_is_left_of_what_the_disk_does_not_take(
    files: Caller, root: Path, operation: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = names(root)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CapabilityFailed, match=r"No space left on device.*capability_failed"):
        await files(operation, NEW, path=path, sync=True)
    assert names(root) == before
    assert (root / "old").read_bytes() == OLD


async def test_a_file_that_is_not_taken_is_closed(files: Caller, root: Path) -> None:
    stuck = Stuck(0)
    files.on_chunk = stuck.stop
    task = asyncio.create_task(files("read", path="data/big"))
    await stuck.reached.wait()
    assert str(root / "big") in open_below(root)
    task.cancel()
    await ended(task)
    assert str(root / "big") not in open_below(root)


async def test_a_file_that_is_too_large_is_closed_at_once(files: Caller, root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        os.truncate(file.fileno(), 2**40)
    files.limits = {"response_bytes": 3 * CHUNK_BYTES}
    with pytest.raises(CapabilityFailed, match="capability_too_large"):
        await files("read", path="data/sparse")


class Cancelling(Executor):
    """Cancels the caller of the n-th work that is given to it: while that runs, or before it begins."""

    def __init__(self, inner: Executor, number: int, *, begun: bool) -> None:
        self.cancel: Callable[[], object] = lambda: None
        self.left = number
        self._inner = inner
        self._begun = begun

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.left -= 1
        if self.left != 0:
            return self._inner.submit(work, *args, **kwargs)
        loop = asyncio.get_running_loop()
        if not self._begun:
            future: Future[Any] = Future()
            loop.call_soon(self._cancel_or_submit, future, work)
            return future
        cancelled = threading.Event()

        def cancel() -> None:
            self.cancel()
            cancelled.set()

        loop.call_soon(cancel)

        def late() -> Any:
            cancelled.wait()
            return work(*args, **kwargs)

        return self._inner.submit(late)

    def _cancel_or_submit(self, future: Future[Any], work: Callable[..., Any]) -> None:
        self.cancel()
        asyncio.get_running_loop().call_soon(self._give_in, future, work)

    def _give_in(self, future: Future[Any], work: Callable[..., Any]) -> None:
        """Whoever does not take it back gets it done."""
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)


CALLS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "read": ("read", b"", {"path": "data/big"}),
    "write": ("write", NEW, {"path": "data/old"}),
    "write, on the disk": ("write", NEW, {"path": "data/old", "sync": True}),
    "write, new": ("write", NEW, {"path": "data/new", "exist_ok": False}),
    "append": ("append", NEW, {"path": "data/old", "sync": True}),
    "append, new": ("append", NEW, {"path": "data/new"}),
    "list": ("list", b"", {"path": "data"}),
    "glob": ("glob", b"", {"path": "data", "pattern": "**/old"}),
    "stat": ("stat", b"", {"path": "data/old"}),
    "mkdir": ("mkdir", b"", {"path": "data/a/b/c", "parents": True}),
    "move": ("move", b"", {"source": "data/old", "target": "data/new"}),
    "remove": ("remove", b"", {"path": "data/old"}),
}


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("way", ["a task", "a task before it begins", "a scope"])
@pytest.mark.parametrize("what", CALLS)
async def test_a_call_is_cancelled_at_any_await(
    files: Caller, root: Path, what: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was done as a whole, or not at all; nothing lies about, and nothing is open."""
    assert isinstance(files.provider, FilesProvider)
    threads = files.provider._means.threads
    monkeypatch.setattr("capsule.providers.files.threads.SLICE", 0)  # each step of what is long can be cancelled
    states = [state(root)]
    for number in range(1, 50):
        executor = Cancelling(threads._executor, number, begun="before" not in way)
        with monkeypatch.context() as patch:
            patch.setattr(threads, "_executor", executor)
            await attempt(files, what, executor, scoped=way == "a scope")
        assert set(open_below(root)) <= {str(root)}
        now = state(root)
        if executor.left > 0:  # it had come to its end before
            states.append(now)
            break
        assert now == states[0] or what not in {"read", "list", "glob", "stat"}
        states.append(now)
        restore(root)
    else:
        pytest.fail("it has no end")
    assert all(seen in (states[0], states[-1]) for seen in states)
    assert len(states) >= 3


async def attempt(files: Caller, what: str, executor: Cancelling, *, scoped: bool) -> None:
    operation, data, fields = CALLS[what]
    call = files(operation, data, **fields)
    if scoped:
        with anyio.CancelScope() as scope:
            executor.cancel = scope.cancel
            await call
        return
    task = asyncio.ensure_future(call)
    executor.cancel = task.cancel
    await asyncio.wait([task])
    if executor.left > 0:
        task.result()
    else:
        assert task.cancelled()


def state(root: Path) -> dict[str, bytes]:
    files = {name: (root / name).read_bytes() for name in names(root) if (root / name).is_file()}
    return {name: b"%d %s" % (len(files[name]), files[name][:3]) if name in files else b"" for name in names(root)}


def restore(root: Path) -> None:
    for name in ("new", "a/b/c", "a/b", "a"):
        if (root / name).is_dir():
            (root / name).rmdir()
        else:
            (root / name).unlink(missing_ok=True)
    (root / "old").write_bytes(OLD)

"""Code is told what happens in a directory, or how much it has missed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from capsule.providers.files import FilesProvider
from capsule.providers.files.watched import PAUSE, Watched
from capsule_protocol.errors import CapabilityFailed
from tests.acceptance.providers.calls import Caller
from tests.acceptance.providers.files.conftest import open_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

Event = dict[str, Any]


class Watching:
    """A watch under way, and what it has told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Condition()

    async def take(self, chunk: bytes) -> None:
        assert chunk.endswith(b"\n")
        async with self._changed:
            self.events += [json.loads(line) for line in chunk.splitlines()]
            self._changed.notify_all()

    async def until(self, **wanted: Any) -> Event:
        """The first event that has these fields; those before are forgotten."""
        async with self._changed:
            while True:
                for number, event in enumerate(self.events):
                    if wanted.items() <= event.items():
                        del self.events[: number + 1]
                        return event
                await self._changed.wait()


@asynccontextmanager
async def watching(files: Caller, path: str = "data", **fields: Any) -> AsyncIterator[Watching]:
    """A watch that is ready, and is cancelled at the end."""
    seen = Watching()
    watcher = Caller(files.provider, files.scope, on_chunk=seen.take)
    task = asyncio.create_task(watcher("watch", path=path, **fields))
    try:
        await seen.until(event="ready")
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_what_happens_is_told(files: Caller, root: Path) -> None:
    async with watching(files) as seen:
        (root / "new").touch()
        assert await seen.until() == {"event": "created", "path": "data/new"}
        with (root / "new").open("a") as file:
            file.write("x")
        assert await seen.until() == {"event": "modified", "path": "data/new"}
        (root / "new").rename(root / "other")
        assert await seen.until() == {"event": "moved", "path": "data/other", "source": "data/new"}
        (root / "other").unlink()
        assert await seen.until() == {"event": "deleted", "path": "data/other"}
        (root / "ümläut").mkdir()
        assert await seen.until() == {"event": "created", "path": "data/ümläut"}


async def test_what_another_session_writes_is_told_once(files: Caller) -> None:
    async with watching(files, "data/folder") as seen:
        await files("write", b"new", path="data/folder/new")
        assert await seen.until() == {"event": "created", "path": "data/folder/new"}
        await files("write", b"newer", path="data/folder/new")
        assert await seen.until() == {"event": "modified", "path": "data/folder/new"}
        await files("move", source="data/folder/new", target="data/elsewhere")
        await files("move", source="data/elsewhere", target="data/folder/back")
        assert await seen.until() == {"event": "deleted", "path": "data/folder/new"}
        assert await seen.until() == {"event": "created", "path": "data/folder/back"}
        assert seen.events == []


async def test_directories_below_are_watched_if_wanted(files: Caller, root: Path) -> None:
    async with watching(files) as flat, watching(files, recursive=True) as deep:
        (root / "folder" / "inner" / "x").touch()
        assert await deep.until() == {"event": "created", "path": "data/folder/inner/x"}
        (root / "last").touch()
        assert await flat.until() == {"event": "created", "path": "data/last"}


async def test_a_directory_that_comes_to_be_is_watched(files: Caller, root: Path) -> None:
    async with watching(files, recursive=True) as seen:
        (root / "a" / "b").mkdir(parents=True)
        (root / "a" / "b" / "early").touch()
        await seen.until(event="created", path="data/a/b/early")
        (root / "a" / "b" / "late").touch()
        await seen.until(event="created", path="data/a/b/late")
        (root / "a").rename(root / "moved")
        await seen.until(event="moved", path="data/moved", source="data/a")
        await seen.until(event="created", path="data/moved/b/late")
        (root / "moved" / "b" / "later").touch()
        await seen.until(event="created", path="data/moved/b/later")


async def test_a_directory_that_leaves_is_watched_no_longer(files: Caller, root: Path, tmp_path: Path) -> None:
    async with watching(files, recursive=True) as seen:
        (root / "folder").rename(tmp_path / "left")
        await seen.until(event="deleted", path="data/folder")
        (tmp_path / "left" / "inner" / "private").touch()
        (tmp_path / "left" / "private").touch()
        (root / "end").touch()
        assert await seen.until() == {"event": "created", "path": "data/end"}


async def test_a_link_that_comes_to_be_is_not_followed(files: Caller, root: Path, outside: Path) -> None:
    (root / "before").symlink_to(outside)
    async with watching(files, recursive=True) as seen:
        (root / "link").symlink_to(outside)
        (root / "to file").symlink_to(outside / "file")
        os.utime(outside / "file")
        (outside / "file").write_text("secret")
        (root / "end").touch()
        names = [(await seen.until())["path"] for _ in range(3)]
        assert names == ["data/link", "data/to file", "data/end"]


async def test_it_ends_after_a_time_or_some_events(files: Caller, root: Path) -> None:
    answer = await files("watch", path="data", seconds=0.01)
    assert answer.value.events == 0
    assert answer.data == b'{"event": "ready"}\n'

    async def make(_chunk: bytes) -> None:
        for name in "abc":
            (root / name).touch()

    files.on_chunk = make
    answer = await files("watch", path="data", count=2)
    assert [json.loads(line)["path"] for line in answer.data.splitlines()[1:]] == ["data/a", "data/b"]
    assert (answer.value.events, answer.value.lost) == (2, 0)


async def test_it_ends_with_its_directory(files: Caller, root: Path) -> None:
    async def remove(_chunk: bytes) -> None:
        if (root / "folder" / "inner").exists():
            (root / "folder" / "inner").rmdir()

    files.on_chunk = remove
    answer = await files("watch", path="data/folder/inner")
    assert answer.data.splitlines()[-1] == b'{"event": "gone"}'


async def test_what_code_does_not_take_is_counted(root: Path) -> None:
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"data": {"path": root, "mode": "rw"}}, "max_waiting": 10})
    made = 0

    async def slow(_chunk: bytes) -> None:
        nonlocal made
        if not made:
            for made in range(1, 101):
                (root / str(made)).touch()
            watched = asyncio.get_running_loop()
            await watched.run_in_executor(None, (root / "end").touch)
            await until_read(provider)

    files.on_chunk = slow
    answer = await files("watch", path="data", count=10)
    events = [json.loads(line) for line in answer.data.splitlines()]
    assert events[0] == {"event": "ready"}
    assert [event["path"] for event in events[1:11]] == [f"data/{number}" for number in range(1, 11)]
    assert (answer.value.events, answer.value.lost) == (10, 91)
    await provider.stop()


async def until_read(provider: FilesProvider) -> None:
    """Until the system's queue is empty."""
    import select

    queues = [int(fd) for fd in os.listdir("/proc/self/fd") if _is_inotify(fd)]  # noqa: PTH208
    while any(select.select(queues, [], [], 0)[0]):
        await asyncio.sleep(0.001)


def _is_inotify(descriptor: str) -> bool:
    try:
        return "inotify" in os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except FileNotFoundError:
        return False


async def test_losses_are_told_in_their_place(root: Path) -> None:
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"data": {"path": root}}, "max_waiting": 3})
    turns = 0

    async def slow(chunk: bytes) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            for number in range(5):
                (root / str(number)).touch()
            await until_read(provider)
        elif b"lost" in chunk:
            (root / "after").touch()

    files.on_chunk = slow
    answer = await files("watch", path="data", count=4)
    told = [(event["event"], event.get("count")) for event in map(json.loads, answer.data.splitlines())]
    assert told == [("ready", None), *[("created", None)] * 3, ("lost", 2), ("created", None)]
    await provider.stop()


async def test_directories_under_a_watch_have_their_bound(root: Path) -> None:
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"data": {"path": root, "mode": "rw"}}, "max_watched": 3})
    async with watching(files, recursive=True) as seen:  # the root, the folder, the inner one
        (root / "more").mkdir()
        assert await seen.until() == {"event": "created", "path": "data/more"}
        assert await seen.until() == {"event": "unwatched", "path": "data/more"}
    with pytest.raises(CapabilityFailed, match="capability_too_large"):
        await files("watch", path="data", recursive=True)
    await provider.stop()


async def test_watches_of_a_node_have_their_bound(files: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capsule.providers.files.means.MOST_WATCHES", 1)
    async with watching(files):
        with pytest.raises(CapabilityFailed, match="provider_unavailable"):
            await files("watch", path="data", seconds=0)
    await files("watch", path="data", seconds=0)


async def test_only_directories_are_watched(files: Caller) -> None:
    with pytest.raises(CapabilityFailed, match="path_not_directory"):
        await files("watch", path="data/folder/file")
    with pytest.raises(CapabilityFailed, match="path_unknown"):
        await files("watch", path="data/none")


async def test_a_watch_that_is_cancelled_closes_its_queue(files: Caller, root: Path) -> None:
    before = {fd for fd in os.listdir("/proc/self/fd") if _is_inotify(fd)}  # noqa: PTH208
    async with watching(files, recursive=True):
        assert {fd for fd in os.listdir("/proc/self/fd") if _is_inotify(fd)} > before  # noqa: PTH208
    assert {fd for fd in os.listdir("/proc/self/fd") if _is_inotify(fd)} == before  # noqa: PTH208
    assert open_below(root) == [str(root)]


FLOOD = """
import os, sys
os.chdir(sys.argv[1])
print("flooding", flush=True)
while True:
    os.close(os.open("x", os.O_CREAT | os.O_WRONLY))
    os.unlink("x")
"""


async def test_a_flood_does_not_hold_the_loop(files: Caller, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn while events come faster than they can be told: between two batches is a pause."""
    batches: list[float] = []
    read = Watched.read

    def counted(watched: Watched) -> None:
        batches.append(time.monotonic())
        read(watched)

    monkeypatch.setattr(Watched, "read", counted)
    command = [sys.executable, "-c", FLOOD, str(root)]
    async with watching(files) as seen:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as flooding:
            try:
                assert flooding.stdout is not None
                flooding.stdout.readline()
                while len(batches) < 5:  # each of these reads had its turn between two batches, or beside one
                    assert (await files("read", path="data/folder/file")).data == b"inside"
                await seen.until(event="created")
            finally:
                flooding.kill()
    assert min(after - before for before, after in pairwise(batches)) >= PAUSE / 2  # timers are a little early

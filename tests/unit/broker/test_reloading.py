"""A policy that is read again: the last word of the file counts, and one that is refused changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from capsule.config import NodeConfig
from tests.acceptance.broker.conftest import HEAD
from tests.unit.broker.test_session_calls import ALL, Worker, broker_with, package

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.broker.broker import Broker, Reloaded

pytestmark = pytest.mark.anyio

__all__ = ["package"]

PROGRAM = "#!/bin/sh\necho {}\n"


def held(place: Path) -> str:
    """A policy that names a root and a program."""
    return (
        f'[[grants]]\nname = "files"\ncapabilities = ["files.list"]\nscope.roots.d = {{ path = "{place}/root" }}\n'
        f'[[grants]]\nname = "shell"\ncapabilities = ["shell.run"]\nscope.sandbox = "none"\n'
        f'scope.programs.p = {{ path = "{place}/bin/p" }}\n'
    )


def put(place: Path, name: str) -> None:
    """A directory with a file of this name, and a program that says it, instead of those that are there."""
    if (place / "root").exists():
        (place / "root").rename(place / "before")
    (place / "root").mkdir()
    (place / "root" / name).touch()
    (place / "bin").mkdir(exist_ok=True)
    program = place / "bin" / "new"
    program.write_text(PROGRAM.format(name))
    program.chmod(0o755)
    program.replace(place / "bin" / "p")


async def reloaded(broker: Broker, place: Path, text: str) -> Reloaded:
    (place / "policy.toml").write_text(HEAD + text)
    return await broker.reload(NodeConfig(broker=broker.config))


async def names(worker: Worker, number: int) -> list[str]:
    """What the root has in it for the code."""
    worker.call(number, "files.list", positional=["d"])
    entries = (await worker.reply(number))["value"]["entries"]
    return [entry["name"] for entry in entries]


async def test_a_policy_that_is_refused_changes_nothing_of_what_the_one_in_force_holds(tmp_path: Path) -> None:
    put(tmp_path, "first")
    good = held(tmp_path)
    wrong = (
        good + f'[[grants]]\nname = "z"\ncapabilities = ["files.stat"]\nscope.roots.q = {{ path = "{tmp_path}/no" }}\n'
    )
    async with broker_with(tmp_path, good) as broker:
        worker = Worker(broker)
        put(tmp_path, "second")
        told = await reloaded(broker, tmp_path, wrong)
        assert (told.digest, told.error is None) == (told.before, False)
        assert await names(worker, 1) == ["first"]
        worker.call(2, "shell.run", positional=[["p"]])
        assert await worker.code(2) == "program_failed"  # it has been replaced
        told = await reloaded(broker, tmp_path, good)  # the same, which comes into force anew
        assert (told.before, told.digest, told.error) == (broker.policy.digest, broker.policy.digest, None)
        assert await names(worker, 3) == ["second"]
        worker.call(4, "shell.run", positional=[["p"]])
        assert await worker.code(4) == ""
        records = [each for each in broker.checkpoint.recorder.audit.records if each.kind == "policy"]  # type: ignore[attr-defined]  # in memory
        assert [each.policy for each in records] == [told.digest, told.digest]


async def test_of_two_policies_the_one_that_was_written_last_is_in_force(tmp_path: Path) -> None:
    async with broker_with(tmp_path, ALL) as broker:
        file, pipe = tmp_path / "policy.toml", tmp_path / "pipe"
        os.mkfifo(pipe)
        shutil.move(pipe, file)
        config = NodeConfig(broker=broker.config)
        first = asyncio.ensure_future(broker.reload(config))
        opened = await asyncio.to_thread(file.open, "w")  # as soon as the first one reads
        pipe.write_text(HEAD)
        pipe.replace(file)
        second = asyncio.ensure_future(broker.reload(config))
        await asyncio.wait([second], timeout=0.2)  # which it would be done in, if it did not wait for the first
        opened.write(HEAD + ALL + 'approval = "always"\n')
        opened.close()
        old, new = await asyncio.gather(first, second)
        assert old.digest == new.before != new.digest == broker.policy.digest
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["you"])
        assert await worker.code(1) == "capability_denied"


async def test_a_policy_that_cannot_even_be_looked_at_changes_nothing_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider of another may raise anything; here the system does, of a path that has no place in it."""
    async with broker_with(tmp_path, ALL) as broker:
        before = broker.policy
        path = "/bin/ls\\u0000"
        grant = '[[grants]]\nname = "a"\ncapabilities = ["shell.run"]\nscope.sandbox = "none"\n'
        told = await reloaded(broker, tmp_path, grant + f'scope.programs.p = {{ path = "{path}" }}\n')
        assert told.error is not None
        assert told.error.code == "policy_refused"
        assert broker.policy is before
    assert "the policy stays as it was" in caplog.text

"""Batches of one name in the main shell and in two subshells, of a service that is killed: each stops for itself."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from capsule.events import Event
from capsule.node.execution import ExecuteRequest
from tests.acceptance.linger.shells import opened, queued, run, succession, until, verdict
from tests.acceptance.linger.test_service import home

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.client.inner import AnyExecution
    from tests.acceptance.linger.shells import Succession

__all__ = ["home"]
pytestmark = pytest.mark.anyio

MANY = 5


def append(shell: str, what: object) -> str:
    return f"seen[{shell!r}].append({what!r})"


class Batch:
    """One that has begun with a cell which waits for a word, and what is queued behind that."""

    def __init__(self, nodes: Succession, gate: Path, shell: str, many: int = MANY) -> None:
        os.mkfifo(gate)
        self._gate = gate
        first = f"print('waits', flush=True)\nexec(open({str(gate)!r}).read())"
        self.first = self._submit(nodes, first, shell)
        self.rest = [self._submit(nodes, append(shell, n), shell) for n in range(many)]
        other = ExecuteRequest(append(shell, "other"), subshell=shell, batch="c", stop_on_error=True)
        self.other = nodes.inner.submit(other)
        self.told: list[Event] = []

    async def begun(self) -> None:
        """Wait until its first cell waits."""
        await until(self.first, "waits\n", self.told)

    def say(self, code: str) -> None:
        """Have the first cell go on with this code."""
        self._gate.write_text(code)

    async def ends(self) -> list[str]:
        """How its cells have ended: their verdicts, or the codes of their errors."""
        ended = [await verdict(self.first, self.told)]
        ended += [await verdict(one) for one in (*self.rest, self.other)]
        return [one.verdict if one.error is None else one.error.code for one in ended]

    def _submit(self, nodes: Succession, code: str, shell: str) -> AnyExecution:
        return nodes.inner.submit(ExecuteRequest(code, subshell=shell, batch="b", stop_on_error=True))


@pytest.mark.parametrize("at", range(3))
async def test_an_error_stops_its_batch_in_its_shell_and_no_other(home: Path, at: int) -> None:
    """While there is no node, which comes to be adopted, or after."""
    async with succession(home) as nodes:
        inner = nodes.inner
        assert (await run(inner, "from collections import defaultdict\nseen = defaultdict(list)")).verdict == "ok"
        shells = ["", await opened(inner), await opened(inner)]
        batches = [Batch(nodes, home / f"gate{number}", shell) for number, shell in enumerate(shells)]
        for batch in batches:
            await batch.begun()
        await queued(nodes, len(shells) * (MANY + 1))
        main, fails, goes_on = batches
        nodes.kill()
        if at == 0:
            fails.say("1 / 0")
        nodes.start()
        if at == 1:
            fails.say("1 / 0")
        nodes.restart()
        if at == 2:
            fails.say("1 / 0")
        assert await fails.ends() == ["execution_error", *["execution_cancelled"] * MANY, "ok"]
        for batch in (main, goes_on):
            batch.say("")
            assert await batch.ends() == ["ok"] * (MANY + 2)
        assert (await run(inner, append(shells[1], "again"), subshell=shells[1], batch="b")).verdict == "ok"
        whole = [*range(MANY), "other"]
        expected = dict(zip(shells, (whole, ["other", "again"], whole), strict=True))
        assert (await run(inner, f"seen == {expected}")).text == "True"
        assert nodes.session.epoch == 1


@pytest.mark.parametrize("before", ["here", "adopted", "dead"])
async def test_what_was_to_be_cancelled_does_not_run_though_the_node_dies_behind_the_error(
    home: Path, before: str
) -> None:
    """The error is told when it is kept. Its node had them from their clients, or from another node, or hears of the
    error before it has them.
    """
    async with succession(home) as nodes:
        inner, many = nodes.inner, 300
        assert (await run(inner, "from collections import defaultdict\nseen = defaultdict(list)")).verdict == "ok"
        fails = Batch(nodes, home / "gate", await opened(inner), many)
        await fails.begun()
        await queued(nodes, many + 1)
        if before != "here":
            nodes.kill()
        if before == "adopted":
            nodes.start()
        fails.say("1 / 0")
        if before == "dead":
            nodes.start()
        assert (await verdict(fails.first, fails.told)).verdict == "error"
        nodes.restart()
        ended = await fails.ends()
        assert ended[0] == "execution_error"
        assert set(ended[1:-1]) == {"execution_cancelled"}
        assert (await run(inner, "list(seen.values())")).text == "[['other']]"


@pytest.mark.parametrize("aside", [False, True], ids=["main", "subshell"])
@pytest.mark.parametrize("told", [False, True], ids=["told later", "told before"])
async def test_what_comes_behind_the_error_does_not_run_at_the_next_node_either(
    home: Path, aside: bool, told: bool
) -> None:
    """Whichever of both has told of the error."""
    async with succession(home) as nodes:
        inner = nodes.inner
        shell = await opened(inner) if aside else ""
        good = inner.submit(ExecuteRequest("ran = 0", subshell=shell, batch="good", stop_on_error=True))
        assert (await verdict(good)).verdict == "ok"
        os.mkfifo(home / "gate")
        cell = f"print('waits', flush=True)\nexec(open({str(home / 'gate')!r}).read())"
        piece = partial(ExecuteRequest, subshell=shell, batch="b", stop_on_error=True)
        fails, events = inner.submit(piece(cell)), list[Event]()
        await until(fails, "waits\n", events)
        if not told:
            nodes.kill()
        (home / "gate").write_text("1 / 0")
        if not told:
            nodes.start()
        assert (await verdict(fails, events)).verdict == "error"
        if told:
            nodes.restart()
        before = fails.id
        for _ in range(3):
            late = inner.submit(piece("ran += 1", follows=before))
            ended, before = await verdict(late), late.id
            assert ended.error is not None
            assert ended.error.code == "execution_cancelled"
        assert (await run(inner, "ran")).text == "0"
        also = await run(inner, "ran", subshell=shell, batch="good", stop_on_error=True, follows=good.id)
        assert also.text == "0"
        assert nodes.session.epoch == 1

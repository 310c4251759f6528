"""A real `capsule serve` with an environment per level, a neighbour for each, and how attacks are made on it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from capsule_protocol.errors import CapsuleError
from tests.acceptance.sandbox.attacks.prey import Prey
from tests.acceptance.serve.support import CAPSULE, Served

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession, Result
    from tests.acceptance.sandbox.attacks.attack import Attack, Level

PASSWORD = "DATABASE_PASSWORD"
SCRATCH_BYTES = 64 * 2**20
NEIGHBOUR = """
import json, os
secret = bytearray(SECRET)
open("mine.txt", "w").write(SECRET.decode())
shared = f"capsule-{SECRET[:8].decode()}-of-LEVEL"
with open(os.open(f"/dev/shm/{shared}", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
    file.write(secret)
print(json.dumps({"address": (ctypes := __import__("ctypes")).addressof(ctypes.c_char.from_buffer(secret)),
                  "size": len(secret), "scratch": os.getcwd(), "shared": shared}))
"""


@dataclass
class Ending:
    """How an attack ended, in one of its ways: `held`, `escaped`, `missing` on this machine, or `broken`."""

    attack: str
    kind: str
    level: Level
    way: str
    how: str
    what: str
    seconds: float = 0.0


@dataclass
class Attacker:
    """A session that attacks, with what its attack's `after` may look at."""

    siege: Siege
    session: AsyncSession
    level: Level
    result: Result | None = None
    before: dict[str, Any] = field(default_factory=dict)


class Siege:
    """`place` must be empty, and have a short path."""

    def __init__(self, place: Path, levels: list[Level], start_method: str = "fork") -> None:
        self.place = place
        # One that is sandboxed at least: control groups are theirs, and at `none` it is tried to loosen a neighbour's.
        self.levels: list[Level] = levels if set(levels) != {"none"} else [*levels, "landlock"]
        self.start_method = start_method
        self.prey = Prey(place)
        self.directory = place / "node"
        self.node: Served
        self.client: AsyncClient
        self.neighbours: dict[Level, AsyncSession] = {}
        self._told: dict[Level, dict[str, Any]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _begin(self) -> None:
        self.place.chmod(0o755)
        (self.place / "boxes").mkdir()
        (self.place / "boxes").chmod(0o755)
        await self._stack.enter_async_context(self.prey)
        os.environ[PASSWORD] = self.prey.secret
        os.environ["XDG_STATE_HOME"] = str(self.place / "state")
        subprocess.run([CAPSULE, "keys", "new", "bait"], check=True, capture_output=True)
        self.node = self._stack.enter_context(Served(self.directory, self._config(), linger=10.0))
        self.client = await self._stack.enter_async_context(self.node.client())
        for level in self.levels:
            await self._add_neighbour(level)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for level in self.levels:
            Path(f"/dev/shm/capsule-{self.prey.secret[:8]}-of-{level}").unlink(missing_ok=True)

    async def attack(self, attack: Attack, level: Level) -> list[Ending]:
        """Make one attack, in a session of its own."""
        begun = time.monotonic()
        options = {} if level == "none" else dict(attack.options)
        async with self.client.session(environment=level, start_timeout=60.0, **options) as session:
            attacker = Attacker(self, session, level)
            told = {**self._told[level], **await self._family(session), "mark": f"mark-{secrets.token_hex(8)}"}
            attacker.before = {"node": self.node_memory(), "told": told}
            async with asyncio.TaskGroup() as group:
                beside = group.create_task(attack.beside(attacker)) if attack.beside else None
                result = attacker.result = await session.run(attack.code(told), timeout=attack.timeout)
            answers = _answers(result, attack)
            felt = beside.result() if beside else None
            found = await attack.after(attacker) if attack.after else None
            if felt or found:
                answers = {"after": ["escaped", str(felt or found)]}
        took = round(time.monotonic() - begun, 2)
        return [Ending(attack.name, attack.kind, level, way, how, what, took) for way, (how, what) in answers.items()]

    def node_memory(self) -> int:
        """What the node holds, in bytes."""
        return int(psutil.Process(self.node.process.pid).memory_info().rss)

    def _config(self) -> str:
        (self.place / "node.toml").touch()
        lines = [f'directory = "{self.place}/boxes"', "[store]", 'durability = "process"']
        for level in self.levels:
            lines += [f"[environments.{level}]", "min_idle = 2", f'start_method = "{self.start_method}"']
            lines += [f'sandbox = "{level}"', f"scratch_bytes = {SCRATCH_BYTES}"] if level != "none" else []
        return "\n".join(lines)

    async def _add_neighbour(self, level: Level) -> None:
        session = await self._stack.enter_async_context(self.client.session(environment=level, start_timeout=60.0))
        result = await session.run(NEIGHBOUR.replace("SECRET", repr(self.prey.secret.encode())).replace("LEVEL", level))
        assert result.verdict == "ok", result.error
        family = await self._family(session)
        self.neighbours[level] = session
        self._told[level] = {
            **self.prey.told(),
            "level": level,
            "directory": str(self.directory),
            "node": self.node.process.pid,
            "state": str(self.place / "state/capsule"),
            "config": str(self.place / "node.toml"),
            "neighbour": {
                **json.loads(result.stdout),
                **family,
                "session": session.id,
                "execution": result.execution_id,
            },
        }

    async def _family(self, session: AsyncSession) -> dict[str, int]:
        """The process ids of a session's worker and those above it, as the machine numbers them."""
        worker = (await session.info()).pid
        above = [process.pid for process in psutil.Process(worker).parents()]
        lineage = above[: above.index(self.node.process.pid)]
        return {"worker": worker, "box": lineage[0], "zygote": lineage[-1]}


def _answers(result: Result, attack: Attack) -> dict[str, list[str]]:
    lines = result.stdout.rstrip("\n").splitlines()
    if result.verdict == "ok" and lines and lines[-1].startswith("{"):
        answers: dict[str, list[str]] = json.loads(lines[-1])
        return answers
    if attack.dies:
        return {"main": ["held", result.verdict]}
    return {"main": ["broken", f"{result.verdict}: {result.error} {result.stdout[-300:]}"]}


async def gather(siege: Siege, attacks: list[Attack], level: Level, at_once: int) -> list[Ending]:
    """Make these attacks, so many at once."""
    gate = asyncio.Semaphore(at_once)

    async def one(attack: Attack) -> list[Ending]:
        async with gate:
            try:
                return await siege.attack(attack, level)
            except (CapsuleError, psutil.Error, AssertionError) as error:
                return [Ending(attack.name, attack.kind, level, "siege", "broken", f"{type(error).__name__}: {error}")]

    return [ending for endings in await asyncio.gather(*map(one, attacks)) for ending in endings]

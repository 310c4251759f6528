"""The zygotes of a node: one for each environment, started when first needed and replaced when it has died."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from capsule.node.launch import Zygote
from capsule.node.sandboxing import sandbox_of
from capsule_protocol.errors import EnvironmentFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from capsule.node.tasks import Tasks
    from capsule.settings.environments import EnvironmentConfig

_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Environments:
    """Those who need a zygote that is being started wait for the same one; its failure is told to all of them."""

    def __init__(self, configs: Mapping[str, EnvironmentConfig], tasks: Tasks, directory: Path | None = None) -> None:
        self._configs = configs
        self._tasks = tasks
        self._directory = directory
        self._zygotes: dict[str, asyncio.Task[Zygote]] = {}

    def configure(self, configs: Mapping[str, EnvironmentConfig]) -> None:
        """Know these from now on; zygotes that have been started stay as they are."""
        self._configs = configs

    def check(self, name: str) -> None:
        """Raises EnvironmentFailed, which lists what there is, if there is no such environment."""
        if name not in self._configs:
            known = ", ".join(sorted(self._configs)) or "none"
            raise EnvironmentFailed("environment_unknown", f"environment: there is no {name!r}; allowed: {known}")

    async def zygote(self, name: str) -> Zygote:
        """A live zygote of the environment.

        Raises EnvironmentFailed (unknown, or it cannot be prepared) or WorkerLost (it was killed while it imported).
        """
        task = self._starting(name)
        try:
            zygote = await asyncio.shield(task)
        except EnvironmentFailed:
            # The next one tries again: what was missing may have been installed meanwhile.
            if self._zygotes.get(name) is task:
                del self._zygotes[name]
            raise
        return await self.zygote(name) if has_ended(zygote) else zygote

    async def close(self) -> None:
        """Let all zygotes end, and wait for it."""
        tasks, self._zygotes = list(self._zygotes.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        zygotes = [task.result() for task in tasks if not task.cancelled() and task.exception() is None]
        for zygote in zygotes:
            zygote.close()
        for zygote in zygotes:
            await zygote.died.wait()

    def _starting(self, name: str) -> asyncio.Task[Zygote]:
        self.check(name)
        task = self._zygotes.get(name)
        if task is not None and not _is_over(task):
            return task
        config = self._configs[name]
        task = self._tasks.start(
            Zygote.start(
                config.python,
                config.preload,
                config.path,
                config.env,
                directory=self._directory,
                sandbox=sandbox_of(config),
                start_method=config.start_method,
            )
        )
        self._zygotes[name] = task
        return task


def _is_over(task: asyncio.Task[Zygote]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None or has_ended(task.result()))


def has_ended(zygote: Zygote) -> bool:
    """Whether the process has ended, also if nobody has noticed yet."""
    try:
        return zygote.died.is_set() or os.waitid(os.P_PID, zygote.pid, _LOOK) is not None
    except ChildProcessError:  # somebody has reaped it
        return True

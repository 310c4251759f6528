"""The pools of a node: one of prepared workers for each environment, made when the environment is first used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from capsule.node.environments import has_ended
from capsule.node.worker import Place, Preparation, Worker
from capsule_pool import BreakerConfig, Pool, PoolConfig, PoolInfo
from capsule_protocol.errors import WorkerLost
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from capsule.config import SessionOptions
    from capsule.node.tasks import Tasks
    from capsule.settings.environments import EnvironmentConfig
    from capsule_pool import OnEvent


TRIES = 20
"""Workers that may be found dead, one after another, before a session gives up."""


class WorkerFactory:
    """Makes the prepared workers of one environment; each is watched from its beginning."""

    def __init__(
        self, name: str, preparation: Preparation, find_place: Callable[[str], Awaitable[Place]], tasks: Tasks
    ) -> None:
        self._name = name
        self._preparation = preparation
        self._find_place = find_place
        self._tasks = tasks

    async def create(self) -> Worker:
        """A worker that waits for its session. Raises EnvironmentFailed or WorkerLost."""
        place = await self._find_place(self._name)
        try:
            worker = await Worker.prepare(place, self._preparation)
        except WorkerLost:
            if not has_ended(place.zygote):
                raise
            # The zygote died meanwhile; there is another.
            worker = await Worker.prepare(await self._find_place(self._name), self._preparation)
        worker.watching = self._tasks.start(worker.watch())
        return worker


class Pools:
    """Hands out workers and takes them back. A worker that no pool can hold is made when it is wanted."""

    def __init__(
        self,
        configs: Mapping[str, EnvironmentConfig],
        find_place: Callable[[str], Awaitable[Place]],
        tasks: Tasks,
        on_event: OnEvent | None = None,
        *,
        lasting: bool = False,
    ) -> None:
        self._lasting = lasting
        self._configs = configs
        self._find_place = find_place
        self._tasks = tasks
        self._on_event = on_event
        self._pools: dict[str, Pool[Worker]] = {}
        self._homes: dict[Worker, Pool[Worker]] = {}
        self._alone: set[Worker] = set()

    async def take(self, options: SessionOptions) -> Worker:
        """A worker for one session. Raises PoolError, EnvironmentFailed, WorkerLost."""
        name = options.environment
        if options.message_bytes != DEFAULT_LIMITS.message_bytes:
            worker = await self._make_alone(options)
            self._alone.add(worker)
            return worker
        pool = self._pool(name)
        for _ in range(TRIES):
            worker = await pool.acquire(priority=options.priority)
            if worker.alive:
                self._homes[worker] = pool
                return worker
            pool.release(worker)  # it died, and nobody has noticed yet
        raise WorkerLost("worker_start_failed", f"{TRIES} workers of environment {name!r} ended before they were used")

    def warm(self, name: str) -> None:
        """Begin to make the workers of an environment that are kept ready. Without it that is done by its first use."""
        self._pool(name).warm()

    def adopt(self, worker: Worker) -> None:
        """One that another node has made: no pool has a place for it."""
        self._alone.add(worker)
        worker.watching = self._tasks.start(worker.watch())

    def configure(self, configs: Mapping[str, EnvironmentConfig]) -> None:
        """Take other sizes, times and budgets for the pools that there are, and for those that are made later."""
        self._configs = configs
        for name, pool in self._pools.items():
            pool.configure(_pool_config(configs[name]))

    def give_back(self, worker: Worker) -> None:
        """The session needs it no more: it is ended. Idempotent."""
        pool = self._homes.pop(worker, None)
        if pool is not None:
            pool.release(worker)
        elif worker in self._alone:
            self._alone.discard(worker)
            self._tasks.start(worker.close())

    def info(self) -> dict[str, PoolInfo]:
        """The pools by environment, also of those that nobody has used."""
        unused = {name: PoolInfo.unused(name, _pool_config(config)) for name, config in self._configs.items()}
        return unused | {name: pool.info() for name, pool in self._pools.items()}

    async def close(self) -> None:
        """Close all of them, and wait until no worker is left."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    async def _make_alone(self, options: SessionOptions) -> Worker:
        config = self._configs[options.environment]
        preparation = Preparation(options.message_bytes, config.warmup, self._lasting)
        try:
            async with asyncio.timeout(config.create_timeout) as scope:
                return await self._factory(options.environment, preparation).create()
        except TimeoutError as error:
            if not scope.expired():
                raise
            message = f"a worker was not ready within create_timeout={config.create_timeout:g} s"
            raise WorkerLost("worker_start_timeout", message) from error

    def _pool(self, name: str) -> Pool[Worker]:
        pool = self._pools.get(name)
        if pool is None:
            config = self._configs[name]
            factory = self._factory(name, Preparation(warmup=config.warmup, lasting=self._lasting))
            pool = self._pools[name] = Pool(factory, _pool_config(config), name, on_event=self._on_event)
        return pool

    def _factory(self, name: str, preparation: Preparation) -> WorkerFactory:
        return WorkerFactory(name, preparation, self._find_place, self._tasks)


def _pool_config(config: EnvironmentConfig) -> PoolConfig:
    return PoolConfig(
        min_idle=config.min_idle,
        max_sessions=config.max_sessions,
        max_starting=config.max_starting,
        idle_ttl=config.idle_ttl,
        max_age=config.max_age,
        acquire_timeout=config.acquire_timeout,
        create_timeout=config.create_timeout,
        idle_bytes=config.idle_bytes,
        member_bytes=config.worker_bytes,
        breaker=BreakerConfig(**dict(config.breaker)),
    )

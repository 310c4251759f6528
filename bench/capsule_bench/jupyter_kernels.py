"""What both contenders of area `jupyter` do: only how their kernels are made differs."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from capsule_bench import cells, jupyter_service
from capsule_bench.execute_ipykernel import (
    PATIENCE,
    Kernel,
    PortTakenError,
    first_reply,
    interrupted,
    kernel,
    pipeline,
)
from capsule_bench.figures import milliseconds, per_second
from capsule_bench.machine import memory, own_memory
from capsule_bench.model import Load, Measured, Memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from traitlets.config import Config

PID = "__import__('os').getpid()"
SLEEP = "import time; print('running', flush=True); time.sleep(100)"
MOST_REPEATED = 3
AWAIT = "import asyncio; print('running', flush=True); await asyncio.sleep(100)"


class Place(Protocol):
    """What makes kernels possible meanwhile, with nothing that was prepared if they are to be started `drained`."""

    def __call__(self, *, drained: bool) -> AbstractContextManager[Config]:
        """How the managers of kernels are to be configured."""


class Kernels:
    """The measures, for the kernels of one place."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def start(self, load: Load) -> Measured:
        """Milliseconds from nothing to the first `execute_reply`."""
        return self._starts(load, drained=False)

    def start_drained(self, load: Load) -> Measured:
        """As `start`, with nothing that was prepared."""
        return self._starts(load, drained=True)

    def server_start(self, load: Load) -> Measured:
        """Milliseconds from a request to jupyter_server until the kernel is idle."""
        with self._place(drained=False) as config, kernel(config):
            return jupyter_service.starts(config, load)

    def one_plus_one(self, load: Load) -> Measured:
        """Milliseconds until both the reply and idle are in."""
        return self._repeat(load, lambda running, _: running.run_ok(cells.ONE_PLUS_ONE, "2"), milliseconds)

    def sequential(self, load: Load) -> Measured:
        """Executions per second."""

        def once(running: Kernel, size: int) -> None:
            for _ in range(size):
                running.run_ok(cells.ONE_PLUS_ONE, "2")

        return self._repeat(load, once, per_second(load.size))

    def pipelined(self, load: Load) -> Measured:
        """Executions per second, 100 in flight."""
        return self._repeat(load, pipeline, per_second(load.size))

    def interrupt_spin(self, load: Load) -> Measured:
        """Milliseconds until the verdict."""
        return self._interrupts(load, cells.SPIN)

    def interrupt_sleep(self, load: Load) -> Measured:
        """Milliseconds until the verdict."""
        return self._interrupts(load, SLEEP)

    def interrupt_await(self, load: Load) -> Measured:
        """Milliseconds until the verdict."""
        return self._interrupts(load, AWAIT)

    def restart(self, load: Load) -> Measured:
        """Milliseconds from the call to the first reply of the new kernel."""

        def once(running: Kernel, _: int) -> None:
            running.manager.restart_kernel(now=True)
            first_reply(running)

        return self._repeat(load, once, milliseconds)

    def burst(self, load: Load) -> Measured:
        """Seconds until the last of many kernels, started at once, has replied.

        A try in which a kernel could not have its ports is repeated, whosever it is, and told.
        """
        used = Memory()

        def once() -> float | None:
            nonlocal used
            begin = time.perf_counter()
            running = list(threads.map(lambda _: _started_if_possible(config), range(load.size)))
            taken = time.perf_counter() - begin
            used = memory()
            list(threads.map(Kernel.close, filter(None, running)))
            return taken if all(running) else None

        with self._place(drained=False) as config, kernel(config), ThreadPoolExecutor(load.size) as threads:
            values, repeated = tried(once, load.warmup + load.samples)
        return Measured(values[load.warmup :], used, repeated)

    def idle_memory(self, load: Load) -> Measured:
        """MiB that belong to a kernel alone; nothing is imported in it."""
        with self._place(drained=False) as config, ExitStack() as stack:
            kernels = [stack.enter_context(kernel(config)) for _ in range(load.size)]
            values = [own_memory(int(running.run(PID).text)) / 2**20 for running in kernels]
            return Measured(values, memory())

    def abandoned(self, load: Load) -> Measured:
        """Seconds from the death of the client to that of its kernel."""
        values = []
        for _ in range(load.warmup + load.samples):
            with self._place(drained=False) as config, kernel(config):
                values.append(_abandon(config))
        return Measured(values[load.warmup :], memory())

    def _starts(self, load: Load, *, drained: bool) -> Measured:
        values = []
        with self._place(drained=drained) as config, kernel(config):  # which is there all the time, as in use
            for _ in range(load.warmup + load.samples):
                begin = time.perf_counter()
                running = _started(config)
                values.append(milliseconds(time.perf_counter() - begin))
                used = memory()
                running.close()
        return Measured(values[load.warmup :], used)

    def _repeat(self, load: Load, once: Callable[[Kernel, int], Any], figure: Callable[[float], float]) -> Measured:
        with self._place(drained=False) as config, kernel(config) as running:
            values = []
            for _ in range(load.warmup + load.samples):
                begin = time.perf_counter()
                once(running, load.size)
                values.append(figure(time.perf_counter() - begin))
            return Measured(values[load.warmup :], memory())

    def _interrupts(self, load: Load, code: str) -> Measured:
        with self._place(drained=False) as config, kernel(config) as running:
            values = [milliseconds(interrupted(running, code)) for _ in range(load.warmup + load.samples)]
            return Measured(values[load.warmup :], memory())


def _started(config: Config) -> Kernel:
    """A kernel that has replied."""
    running = Kernel(config)
    first_reply(running)
    return running


def _started_if_possible(config: Config) -> Kernel | None:
    """As `_started`; None if it could not have its ports."""
    running = Kernel(config)
    try:
        first_reply(running)
    except PortTakenError:
        running.close()
        return None
    return running


def tried(once: Callable[[], float | None], wanted: int) -> tuple[list[float], int]:
    """So many figures, and how many tries gave none. Raises PortTakenError if it is more than MOST_REPEATED."""
    values: list[float] = []
    repeated = 0
    while len(values) < wanted:
        value = once()
        if value is not None:
            values.append(value)
        elif repeated < MOST_REPEATED:
            repeated += 1
        else:
            raise PortTakenError(f"kernels could not have their ports in {repeated + 1} tries")
    return values, repeated


def _abandon(config: Config) -> float:
    """Seconds from the death of a client until its kernel, which is held by a C function, is gone."""
    command = [sys.executable, "-P", "-m", "capsule_bench.jupyter_victim", json.dumps(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        kernel_process = os.pidfd_open(int(client.stdout.readline()))
        try:
            client.kill()
            begin = time.perf_counter()
            gone, _, _ = select.select([kernel_process], [], [], PATIENCE)
            taken = time.perf_counter() - begin
        finally:
            os.close(kernel_process)
    cells.expect("processes that are gone", len(gone), 1)
    return taken

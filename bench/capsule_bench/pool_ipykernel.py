"""Contender `ipykernel` of area `pool`: there is no pool, each kernel is a fresh process."""

from __future__ import annotations

import time

from capsule_bench import cells
from capsule_bench.execute_ipykernel import kernel, start
from capsule_bench.machine import memory, own_memory
from capsule_bench.model import Load, Measured

STARTS = Load(samples=5, warmup=1)


def first_result(load: Load) -> Measured:
    """Milliseconds from nothing to the first result; a few samples only, it takes long."""
    return start(Load(min(load.samples, STARTS.samples), STARTS.warmup))


def drained(load: Load) -> Measured:
    """As `first_result`."""
    return first_result(load)


def sustained(load: Load) -> Measured:
    """Kernels per second, each started, used and ended."""
    count = min(load.size, 10)
    values = []
    for _ in range(load.samples):
        begin = time.perf_counter()
        for _ in range(count):
            with kernel() as running:
                running.run_ok(cells.ONE_PLUS_ONE, "2")
        values.append(count / (time.perf_counter() - begin))
    return Measured(values, memory())


def idle_memory(load: Load) -> Measured:
    """MiB that belong to a kernel alone; nothing is imported in it."""
    values = []
    for _ in range(min(load.size, 3)):
        with kernel() as running:
            reply = running.run("__import__('os').getpid()")
            values.append(own_memory(int(reply.text)) / 2**20)
            used = memory()
    return Measured(values, used)

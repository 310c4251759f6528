"""Contender `ipykernel` of area `jupyter`: each kernel is a fresh process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from traitlets.config import Config

from capsule_bench.jupyter_kernels import Kernels

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _nothing(*, drained: bool) -> Iterator[Config]:
    del drained  # nothing is prepared in any case
    yield Config()


_KERNELS = Kernels(_nothing)

start = _KERNELS.start
start_drained = _KERNELS.start_drained
server_start = _KERNELS.server_start
one_plus_one = _KERNELS.one_plus_one
sequential = _KERNELS.sequential
pipelined = _KERNELS.pipelined
interrupt_spin = _KERNELS.interrupt_spin
interrupt_sleep = _KERNELS.interrupt_sleep
restart = _KERNELS.restart
burst = _KERNELS.burst
idle_memory = _KERNELS.idle_memory

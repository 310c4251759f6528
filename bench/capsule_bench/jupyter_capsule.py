"""Contender `capsule` of area `jupyter`: sessions of a node, through the provisioner that plain kernels are given."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from traitlets.config import Config

from capsule_bench.jupyter_kernels import Kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = "[environments.default]\nmin_idle = {idle}\n[store]\ndurability = 'none'\n"
IDLE = 4
"""Workers that wait for a kernel."""


@contextmanager
def _node(*, drained: bool) -> Iterator[Config]:
    os.environ["JUPYTER_DEFAULT_PROVISIONER_NAME"] = "capsule"
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        directory, config = Path(folder, "node"), Path(folder, "capsule.toml")
        config.write_text(CONFIG.format(idle=0 if drained else IDLE), encoding="utf-8")
        capsule = Path(sys.executable).with_name("capsule")
        command = [str(capsule), "serve", "--directory", str(directory), "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield Config({"CapsuleProvisioner": {"directory": str(directory)}})
            finally:
                process.terminate()


_KERNELS = Kernels(_node)

start = _KERNELS.start
start_drained = _KERNELS.start_drained
server_start = _KERNELS.server_start
one_plus_one = _KERNELS.one_plus_one
sequential = _KERNELS.sequential
pipelined = _KERNELS.pipelined
interrupt_spin = _KERNELS.interrupt_spin
interrupt_sleep = _KERNELS.interrupt_sleep
interrupt_await = _KERNELS.interrupt_await
restart = _KERNELS.restart
burst = _KERNELS.burst
idle_memory = _KERNELS.idle_memory
abandoned = _KERNELS.abandoned

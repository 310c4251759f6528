"""The service over the network: `tcp://` on the loopback, with CURVE and a key of the client's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from capsule import AsyncClient
from capsule_bench import cells
from capsule_bench.figures import milliseconds
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def encrypted_service() -> Iterator[tuple[str, str]]:
    """The address of a service that runs meanwhile, and a key for it; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        capsule = str(Path(sys.executable).with_name("capsule"))
        environment = {**os.environ, "XDG_STATE_HOME": folder, "CAPSULE_STORE__DURABILITY": "none"}
        made = subprocess.run([capsule, "keys", "new", "bench"], env=environment, stdout=subprocess.PIPE, check=True)
        command = [capsule, "serve", "--directory", str(Path(folder, "node")), "--listen", "tcp://127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield process.stdout.readline().decode().split()[-1], made.stdout.decode()
            finally:
                process.terminate()


def over_tcp(load: Load) -> Measured:
    """Milliseconds for `1+1`."""

    async def measure() -> Measured:
        values = []
        with encrypted_service() as (address, key):
            async with AsyncClient(address, key=key) as client, client.session() as running:
                for _ in range(load.warmup + load.samples):
                    begin = time.perf_counter()
                    result = await running.run(cells.ONE_PLUS_ONE)
                    values.append(milliseconds(time.perf_counter() - begin))
                    cells.expect("value", result.text, "2")
                return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())

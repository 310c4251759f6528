"""Of area `capabilities`: what a call takes, as the code of a session sees it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from capsule import AsyncClient
from capsule_bench import cells
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measure, Measured, Must

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_BYTES = 64 * 2**20
MEASURES = (
    Measure(
        "call_trivial",
        "`caps.system.time()`, allowed, with an audit trail at the level `process`",
        "ms",
        full=Load(samples=2_000, warmup=200),
        quick=Load(samples=100, warmup=10),
        must=Must(median=1),
    ),
    Measure(
        "call_denied",
        "a call that no grant allows, with an audit trail at the level `process`",
        "ms",
        full=Load(samples=2_000, warmup=200),
        quick=Load(samples=100, warmup=10),
        must=Must(median=0.6),
    ),
    Measure(
        "files_read",
        f"`caps.files.read` of {FILE_BYTES // 2**20} MiB",
        "MB/s",
        full=Load(samples=20, warmup=3, size=FILE_BYTES),
        quick=Load(samples=2, warmup=1, size=FILE_BYTES),
        higher_is_better=True,
        must=Must(median=300),
    ),
    Measure(
        "shell_run",
        '`caps.shell.run(["true"])` in namespaces of its own, to its end and that of all it has left',
        "ms",
        full=Load(samples=300, warmup=20),
        quick=Load(samples=10, warmup=2),
    ),
)
POLICY = """
version = 1
pack = "balanced"
sandbox = "none"
[ceiling]
per_second = "none"
total_bytes = "none"
[budget]
faults = 100000
[[grants]]
name = "system"
capabilities = ["system.time"]
[[grants]]
name = "data"
capabilities = ["files.read"]
scope.roots.data = {{ path = "{folder}" }}
[[grants]]
name = "programs"
capabilities = ["shell.run"]
scope.programs.true = {{ path = "/bin/true" }}
"""
TIMES = """
import json, time
def measured(call, warmup, samples):
    taken = []
    for number in range(warmup + samples):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    print(json.dumps(taken[warmup:]))
def denied():
    try:
        caps.http.fetch("http://127.0.0.1/")
    except PermissionError:
        return
    raise AssertionError("it was not denied")
"""


def call_trivial(load: Load) -> Measured:
    """Milliseconds."""
    return asyncio.run(_measure(load, "caps.system.time", lambda seconds: seconds * 1000))


def call_denied(load: Load) -> Measured:
    """Milliseconds."""
    return asyncio.run(_measure(load, "denied", lambda seconds: seconds * 1000))


def files_read(load: Load) -> Measured:
    """Megabytes a second, until the code has all of them as one bytes object."""
    return asyncio.run(
        _measure(load, "lambda: caps.files.read('data/large')", lambda seconds: load.size / seconds / 1e6)
    )


def shell_run(load: Load) -> Measured:
    """Milliseconds."""
    return asyncio.run(_measure(load, "lambda: caps.shell.run(['true'])", lambda seconds: seconds * 1000))


async def _measure(load: Load, call: str, figure: Callable[[float], float]) -> Measured:
    with tempfile.TemporaryDirectory(prefix="capsule-bench-") as folder:
        policy = Path(folder, "policy.toml")
        data = Path(folder, "data")
        data.mkdir()
        policy.write_text(POLICY.format(folder=data), encoding="utf-8")
        (data / "large").write_bytes(bytes(load.size))
        broker = {"policy": policy, "audit": Path(folder, "audit")}
        async with AsyncClient(broker=broker) as client, client.session() as session:
            result = await session.run(f"{TIMES}\nmeasured({call}, {load.warmup}, {load.samples})")
            cells.expect("verdict", result.verdict, "ok")
            return Measured([figure(each) for each in json.loads(result.stdout)], memory())

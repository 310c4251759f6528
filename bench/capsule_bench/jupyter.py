"""Area `jupyter`: kernels as notebooks and IDEs use them, all through jupyter_client. Capsule's against ipykernel."""

from __future__ import annotations

from capsule_bench.model import Area, Contender, Load, Measure, Must

_QUICK = Load(samples=2, warmup=1)
_INTERRUPT = Load(samples=20, warmup=2)

AREA = Area(
    name="jupyter",
    title="kernels through jupyter_client",
    contenders=(
        Contender("capsule", "capsule_bench.jupyter_capsule", ("capsule-exec", "jupyter_client", "ipython", "pyzmq")),
        Contender("ipykernel", "capsule_bench.jupyter_ipykernel", ("ipykernel", "jupyter_client", "ipython", "pyzmq")),
    ),
    measures=(
        Measure(
            "start",
            "start a kernel until its first reply, warm pool",
            "ms",
            full=Load(samples=15, warmup=2),
            quick=_QUICK,
            must=Must(median=35),
        ),
        Measure(
            "start_drained",
            "the same, pool drained",
            "ms",
            full=Load(samples=10, warmup=2),
            quick=_QUICK,
            must=Must(median=70),
        ),
        Measure(
            "server_start",
            "ask jupyter_server for a kernel until its first idle",
            "ms",
            full=Load(samples=10, warmup=2),
            quick=_QUICK,
            must=Must(median=110),
        ),
        Measure(
            "one_plus_one",
            "execute `1+1` until reply and idle",
            "ms",
            full=Load(samples=300, warmup=50),
            quick=Load(samples=30, warmup=5),
            must=Must(median=1.7),
        ),
        Measure(
            "sequential",
            "executions one after another",
            "executions/s",
            full=Load(samples=3, warmup=1, size=500),
            quick=Load(samples=1, size=50),
            higher_is_better=True,
            must=Must(median=600),
        ),
        Measure(
            "pipelined",
            "executions with 100 in flight",
            "executions/s",
            full=Load(samples=3, warmup=1, size=1_000),
            quick=Load(samples=1, size=200),
            higher_is_better=True,
            must=Must(median=1_000),
        ),
        Measure(
            "interrupt_spin",
            "interrupt `while True: pass`",
            "ms",
            full=_INTERRUPT,
            quick=_QUICK,
            must=Must(median=10),
        ),
        Measure(
            "interrupt_sleep",
            "interrupt `time.sleep(100)`",
            "ms",
            full=_INTERRUPT,
            quick=_QUICK,
            must=Must(median=10),
        ),
        Measure(
            "interrupt_await",
            "interrupt `await asyncio.sleep(100)`; ipykernel does not",
            "ms",
            full=_INTERRUPT,
            quick=_QUICK,
            must=Must(median=10),
            alone=True,
        ),
        Measure(
            "restart",
            "restart until the first reply",
            "ms",
            full=Load(samples=10, warmup=1),
            quick=_QUICK,
            must=Must(median=60),
        ),
        Measure(
            "burst",
            "20 kernels at once, until the last has replied",
            "s",
            full=Load(samples=2, warmup=1, size=20, seconds=120.0),
            quick=Load(samples=1, size=4),
            must=Must(median=0.8),
        ),
        Measure(
            "idle_memory",
            "own memory of an idle kernel",
            "MiB",
            full=Load(samples=1, size=10),
            quick=Load(samples=1, size=2),
            must=Must(median=8),
        ),
        Measure(
            "abandoned",
            "client killed while the cell holds the GIL, until all processes are gone; ipykernel's stay",
            "s",
            full=Load(samples=5),
            quick=Load(samples=1),
            must=Must(median=1),
            alone=True,
        ),
    ),
)

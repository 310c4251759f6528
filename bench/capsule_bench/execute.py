"""Area `execute`: one session runs code. Capsule in library mode against ipykernel through jupyter_client."""

from __future__ import annotations

from capsule_bench.model import Area, Contender, Load, Measure, Must

AREA = Area(
    name="execute",
    title="running code in one session",
    contenders=(
        Contender("capsule", "capsule_bench.execute_capsule", ("capsule-exec", "ipython", "pyzmq", "msgpack")),
        Contender(
            "ipykernel",
            "capsule_bench.execute_ipykernel",
            ("ipykernel", "jupyter_client", "ipython", "pyzmq", "tornado"),
        ),
    ),
    measures=(
        Measure(
            "one_plus_one",
            "execute `1+1`, request to verdict",
            "ms",
            full=Load(samples=300, warmup=50),
            quick=Load(samples=30, warmup=5),
            must=Must(median=0.55, ratio=5),
        ),
        Measure(
            "sleep_zero",
            "execute `await asyncio.sleep(0)`",
            "ms",
            full=Load(samples=300, warmup=50),
            quick=Load(samples=30, warmup=5),
            must=Must(median=0.8),
        ),
        Measure(
            "pipelined",
            "trivial executions, 100 in flight",
            "executions/s",
            full=Load(samples=2, warmup=1, size=1000),
            quick=Load(samples=1, size=200),
            higher_is_better=True,
            must=Must(median=3000),
        ),
        Measure(
            "interrupt",
            "interrupt `while True: pass`, to verdict",
            "ms",
            full=Load(samples=30, warmup=3),
            quick=Load(samples=5, warmup=1),
            must=Must(median=3),
        ),
        Measure(
            "printed_lines",
            "100,000 printed lines to the client",
            "lines/s",
            full=Load(samples=5, warmup=1, size=100_000),
            quick=Load(samples=1, warmup=1, size=100_000),
            higher_is_better=True,
            must=Must(median=500_000),
        ),
        Measure(
            "bulk_output",
            "50 MB of output",
            "MB/s",
            full=Load(samples=5, warmup=1, size=50),
            quick=Load(samples=1, warmup=1, size=50),
            higher_is_better=True,
            must=Must(median=400),
        ),
        Measure(
            "big_result",
            "a result of 10 MB",
            "ms",
            full=Load(samples=5, warmup=1, size=10),
            quick=Load(samples=1, warmup=1, size=10),
        ),
        Measure(
            "start",
            "start to first result, fresh process",
            "ms",
            full=Load(samples=3, warmup=1),
            quick=Load(samples=1, warmup=1),
            must=Must(ratio=1),
        ),
    ),
)

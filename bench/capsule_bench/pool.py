"""Area `pool`: how sessions begin. Capsule's pool in library mode against kernels that jupyter_client starts."""

from __future__ import annotations

from capsule_bench.model import Area, Contender, Load, Measure, Must

AREA = Area(
    name="pool",
    title="beginning sessions",
    contenders=(
        Contender("capsule", "capsule_bench.pool_capsule", ("capsule-exec", "ipython", "pyzmq", "numpy", "pandas")),
        Contender("ipykernel", "capsule_bench.pool_ipykernel", ("ipykernel", "jupyter_client", "ipython", "pyzmq")),
    ),
    measures=(
        Measure(
            "acquire",
            "acquire a warm session",
            "ms",
            full=Load(samples=200, warmup=20, size=8),
            quick=Load(samples=30, warmup=5, size=8),
            must=Must(median=1, p99=5),
            alone=True,
        ),
        Measure(
            "first_result",
            "acquire and first result, one after another",
            "ms",
            full=Load(samples=200, warmup=20, size=8),
            quick=Load(samples=20, warmup=5, size=8),
            must=Must(median=3, p99=15),
        ),
        Measure(
            "staggered",
            "acquire and first result, one every 200 ms",
            "ms",
            full=Load(samples=40, warmup=3, size=8),
            quick=Load(samples=10, warmup=2, size=8),
            must=Must(median=3, p99=15),
            alone=True,
        ),
        Measure(
            "burst_of_ten",
            "acquire and first result, ten at once from a pool of ten",
            "ms",
            full=Load(samples=10, warmup=1, size=10),
            quick=Load(samples=2, warmup=1, size=10),
            alone=True,
        ),
        Measure(
            "drained",
            "first result with the pool drained",
            "ms",
            full=Load(samples=50, warmup=5),
            quick=Load(samples=10, warmup=2),
            must=Must(median=20, p99=80),
        ),
        Measure(
            "burst",
            "burst of 100 with a pool of 10: first result of the last",
            "ms",
            full=Load(samples=2, warmup=1, size=100),
            quick=Load(samples=1, size=100),
            must=Must(median=1000),
            alone=True,
        ),
        Measure(
            "sustained",
            "create, run, close, again and again",
            "sessions/s",
            full=Load(samples=2, warmup=1, size=200),
            quick=Load(samples=1, size=50),
            higher_is_better=True,
            must=Must(median=100),
        ),
        Measure(
            "idle_memory",
            "own memory of an idle worker, numpy and pandas preloaded (ipykernel: without them)",
            "MiB",
            full=Load(samples=1, size=10),
            quick=Load(samples=1, size=3),
            must=Must(median=5),
        ),
        Measure(
            "held",
            "all memory with 500 idle sessions",
            "MiB",
            full=Load(samples=1, size=500, seconds=180),
            quick=Load(samples=1, size=50),
            must=Must(median=4096),
            alone=True,
        ),
        Measure(
            "neighbours",
            "p99 of `1+1` beside a fork bomb, a memory hog and a descriptor hog under limits, ÷ p99 of a quiet run",
            "x",
            full=Load(samples=3, warmup=1, size=1000, seconds=180),
            quick=Load(samples=1, size=500),
            must=Must(median=3),
            alone=True,
        ),
    ),
)

"""Area `bridge`: durable promises in SQLite and PostgreSQL, beneath the node; nothing else is measured beside it."""

from __future__ import annotations

from capsule_bench.model import Area, Contender, Load, Measure, Must

AREA = Area(
    name="bridge",
    title="durable promises",
    contenders=(Contender("capsule", "capsule_bench.bridge_capsule", ("capsule-exec", "msgpack", "asyncpg")),),
    measures=(
        Measure(
            "one_caller_process",
            "create or settle, one caller, level `process`",
            "ms",
            full=Load(samples=2000, warmup=100),
            quick=Load(samples=50, warmup=5),
            must=Must(median=0.2),
        ),
        Measure(
            "one_caller_power",
            "create or settle, one caller, level `power`",
            "ms",
            full=Load(samples=2000, warmup=100),
            quick=Load(samples=50, warmup=5),
            must=Must(median=0.8),
        ),
        Measure(
            "many_callers",
            "durable operations, 64 callers, level `power`",
            "operations/s",
            full=Load(samples=3, warmup=1, size=20_000),
            quick=Load(samples=1, size=2_000),
            higher_is_better=True,
            must=Must(median=10_000),
        ),
        Measure(
            "waiter_woken",
            "wake whoever waits for a verdict, from its commit, level `power`",
            "ms",
            full=Load(samples=1000, warmup=50),
            quick=Load(samples=50, warmup=5),
            must=Must(median=0.5),
        ),
        Measure(
            "events_logged",
            "output events of 200 bytes logged, ten at once, level `power`",
            "events/s",
            full=Load(samples=3, warmup=1, size=100_000),
            quick=Load(samples=1, size=5_000),
            higher_is_better=True,
            must=Must(median=50_000),
        ),
        Measure(
            "resume",
            "resume behind 9,000 of 10,000 events: read the last 1,000",
            "ms",
            full=Load(samples=500, warmup=20, size=10_000),
            quick=Load(samples=20, warmup=2, size=10_000),
            must=Must(median=2),
        ),
        Measure(
            "recovery_scan",
            "find 1,000 pending among 200,000 promises, opening the store included",
            "ms",
            full=Load(samples=10, warmup=1, size=200_000, seconds=180),
            quick=Load(samples=2, size=5_000),
            must=Must(median=200),
        ),
        Measure(
            "postgres_one_caller",
            "PostgreSQL: create or settle, one caller",
            "ms",
            full=Load(samples=1000, warmup=100),
            quick=Load(samples=50, warmup=6),
        ),
        Measure(
            "postgres_many_callers",
            "PostgreSQL: durable operations, 64 callers",
            "operations/s",
            full=Load(samples=3, warmup=1, size=20_000),
            quick=Load(samples=1, size=2_000),
            higher_is_better=True,
            must=Must(median=8_000),
        ),
        Measure(
            "postgres_wake_up",
            "PostgreSQL: settled at one node, until one who waits at another has the verdict",
            "ms",
            full=Load(samples=500, warmup=50),
            quick=Load(samples=50, warmup=5),
            must=Must(median=2),
        ),
    ),
)

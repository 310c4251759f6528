"""Area `serve`: a node of its own process, used over `ipc://`. Capsule's service against an ipykernel."""

from __future__ import annotations

from capsule_bench.model import Area, Contender, Load, Measure, Must

MEMORY_IS_TOUCHED = 2
"""Transfers of 1 GiB before the first that counts. A fresh virtual machine gets each page of its file cache from the
host at its first use, at some 600 MB/s here: what is measured otherwise is the host."""

AREA = Area(
    name="serve",
    title="a service over ipc",
    contenders=(
        Contender("capsule", "capsule_bench.serve_capsule", ("capsule-exec", "ipython", "pyzmq", "msgpack")),
        # It is a process of its own in any case.
        Contender("ipykernel", "capsule_bench.execute_ipykernel", ("ipykernel", "jupyter_client", "ipython", "pyzmq")),
    ),
    measures=(
        Measure(
            "one_plus_one",
            "execute `1+1`, request to verdict",
            "ms",
            full=Load(samples=300, warmup=50),
            quick=Load(samples=30, warmup=5),
            must=Must(median=0.9, p99=3, ratio=3),
        ),
        Measure(
            "one_plus_one_tcp",
            "the same over tcp with CURVE",
            "ms",
            full=Load(samples=300, warmup=50),
            quick=Load(samples=30, warmup=5),
            must=Must(median=1.2),
            alone=True,
        ),
        Measure(
            "many_clients",
            "trivial executions, 32 clients with a session each",
            "executions/s",
            full=Load(samples=2, warmup=1, size=3200),
            quick=Load(samples=1, size=320),
            higher_is_better=True,
            must=Must(median=3000),
            alone=True,
        ),
        Measure(
            "first_result",
            "acquire a warm session and first result",
            "ms",
            full=Load(samples=200, warmup=20),
            quick=Load(samples=20, warmup=5),
            must=Must(median=5, p99=20),
            alone=True,
        ),
        Measure(
            "upload",
            "upload of 1 GiB",
            "MB/s",
            full=Load(samples=2, warmup=MEMORY_IS_TOUCHED, size=1024, seconds=120.0),
            quick=Load(samples=1, size=64),
            higher_is_better=True,
            must=Must(median=300),
            alone=True,
        ),
        Measure(
            "download",
            "download of 1 GiB",
            "MB/s",
            full=Load(samples=2, warmup=MEMORY_IS_TOUCHED, size=1024, seconds=120.0),
            quick=Load(samples=1, size=64),
            higher_is_better=True,
            must=Must(median=300),
            alone=True,
        ),
        Measure(
            "transfer_memory",
            "growth of the node while 1 GiB goes up and down",
            "MiB",
            full=Load(samples=1, size=1024, seconds=120.0),
            quick=Load(samples=1, size=64),
            must=Must(median=64),
            alone=True,
        ),
        Measure(
            "bulk_output",
            "50 MB of output",
            "MB/s",
            full=Load(samples=5, warmup=1, size=50),
            quick=Load(samples=1, warmup=1, size=50),
            higher_is_better=True,
        ),
        Measure(
            "unread_growth",
            "growth of the node beside a client that never reads what its cell prints",
            "MiB",
            full=Load(samples=3, size=500),
            quick=Load(samples=1, size=50),
            must=Must(median=32),
            alone=True,
        ),
        Measure(
            "unread_neighbour",
            "p99 of a neighbour beside such a client, against p99 without it",
            "x",
            full=Load(samples=3, size=1000),
            quick=Load(samples=1, size=100),
            must=Must(median=2),
            alone=True,
        ),
        Measure(
            "idle_clients_memory",
            "memory of the node for each of 1,000 idle clients",
            "KiB",
            full=Load(samples=1, size=1000, seconds=120),
            quick=Load(samples=1, size=100),
            must=Must(median=100),
            alone=True,
        ),
        Measure(
            "idle_clients_cpu",
            "processor time of the node for 1,000 idle clients",
            "%",
            full=Load(samples=3, size=1000, seconds=180),
            quick=Load(samples=1, size=100),
            must=Must(median=2),
            alone=True,
        ),
    ),
)

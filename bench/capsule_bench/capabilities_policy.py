"""Of area `capabilities`: what a decision of a policy takes, and a record of the audit trail."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from capsule.broker.audit import Record, open_audit
from capsule.broker.packs import AuditSettings
from capsule.broker.policy import Policy, Query, load
from capsule.broker.sdk import Descriptor, Empty, Operation
from capsule_bench.figures import milliseconds
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measure, Measured, Must, WrongResultError

RULES = 1_000
MEASURES = (
    Measure(
        "policy_decision",
        f"policy: a decision that was not asked for before, {RULES:,} rules",
        "ms",
        full=Load(samples=5_000, warmup=500),
        quick=Load(samples=500, warmup=50),
        must=Must(median=0.02),
        alone=True,
    ),
    Measure(
        "policy_decision_again",
        f"policy: a decision that was, {RULES:,} rules",
        "ms",
        full=Load(samples=5_000, warmup=500),
        quick=Load(samples=500, warmup=50),
        must=Must(median=0.02),
        alone=True,
    ),
    Measure(
        "audit_process",
        "audit: a record, at the level `process`",
        "ms",
        full=Load(samples=5_000, warmup=500),
        quick=Load(samples=500, warmup=50),
        must=Must(median=0.06),
        alone=True,
    ),
    Measure(
        "audit_power",
        "audit: a record, at the level `power`",
        "ms",
        full=Load(samples=1_000, warmup=50),
        quick=Load(samples=100, warmup=10),
        alone=True,
    ),
)
RECORD = Record(
    "call",
    "accepted",
    principal="alice@example.org",
    session="s-0123456789abcdef",
    session_name="report",
    environment="default",
    execution="x-0123456789abcdef",
    capability="files.read",
    key="x-0123456789abcdef:cap:1",
    arguments={"path": "data/prices.csv", "offset": 0},
    grant="data",
    line=12,
    policy="0" * 32,
    why="line 12: the grant 'data' allows files.read",
    duration=0.00123,
    request_bytes=120,
    response_bytes=65_536,
)


def policy_decision(load_: Load) -> Measured:
    """Each principal asks for the first time: exact names, globs that begin or end with a star, and others."""
    return _decisions(load_, again=False)


def policy_decision_again(load_: Load) -> Measured:
    """One principal asks again and again."""
    return _decisions(load_, again=True)


def audit_process(load_: Load) -> Measured:
    """One after another."""
    return asyncio.run(_audit(load_, AuditSettings(level="process")))


def audit_power(load_: Load) -> Measured:
    """One after another: each waits for a sync of its own."""
    return asyncio.run(_audit(load_, AuditSettings(level="power")))


def _decisions(load_: Load, *, again: bool) -> Measured:
    policy = _policy()
    samples = []
    for number in range(load_.warmup + load_.samples):
        rule = number % RULES
        principal = (f"p{rule}", f"p{rule}-{number}", f"{number}-p{rule}", f"p{rule}-{number}-y1")[rule % 4]
        query = Query("files.read", "p0" if again else principal, "default", "s-0" if again else f"s-{number}")
        begun = time.perf_counter()
        decision = policy.decide(query)
        samples.append(milliseconds(time.perf_counter() - begun))
        if not decision.allowed or len(decision.grants) != 1:
            raise WrongResultError(decision.why)
    return Measured(samples[load_.warmup :], memory())


def _policy() -> Policy:
    operation = Operation("Read", Empty, Empty)
    descriptor = Descriptor("files", "1", dict.fromkeys(("read", "list", "write"), operation))
    lines = ["version = 1"]
    for number in range(RULES):
        principal = (f"p{number}", f"p{number}-*", f"*-p{number}", f"p{number}-*-y[0-9]")[number % 4]
        lines += ["[[grants]]", f'name = "g{number}"', 'capabilities = ["files.read", "files.list"]']
        lines += [f'principals = ["{principal}"]', 'environments = ["default"]', 'sessions = ["s-*", "t"]']
    with tempfile.TemporaryDirectory(prefix="capsule-bench-") as folder:
        file = Path(folder, "policy.toml")
        file.write_text("\n".join(lines), encoding="utf-8")
        return load(file, {"files": descriptor})


async def _audit(load_: Load, settings: AuditSettings) -> Measured:
    samples = []
    with tempfile.TemporaryDirectory(prefix="capsule-bench-") as folder:
        trail = open_audit(Path(folder, "audit"), settings)
        for _ in range(load_.warmup + load_.samples):
            begun = time.perf_counter()
            await trail.append(RECORD)
            samples.append(milliseconds(time.perf_counter() - begun))
        await trail.close()
    return Measured(samples[load_.warmup :], memory())

"""Contender `capsule` of area `capabilities`: what measures each of it."""

from __future__ import annotations

from capsule_bench.capabilities_calls import call_denied, call_trivial, files_read, shell_run
from capsule_bench.capabilities_policy import audit_power, audit_process, policy_decision, policy_decision_again
from capsule_bench.capabilities_sandbox import execute_sandboxed, isolated_worker, isolation, landlocked_worker

__all__ = [
    "audit_power",
    "audit_process",
    "call_denied",
    "call_trivial",
    "execute_sandboxed",
    "files_read",
    "isolated_worker",
    "isolation",
    "landlocked_worker",
    "policy_decision",
    "policy_decision_again",
    "shell_run",
]

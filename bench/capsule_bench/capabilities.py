"""Area `capabilities`: calls through the broker, its parts, and the sandbox behind it; nothing is compared."""

from __future__ import annotations

from capsule_bench import capabilities_calls, capabilities_policy, capabilities_sandbox
from capsule_bench.model import Area, Contender

AREA = Area(
    name="capabilities",
    title="capabilities, policy, audit and sandbox",
    contenders=(Contender("capsule", "capsule_bench.capabilities_capsule", ("capsule-exec", "pydantic")),),
    measures=(*capabilities_calls.MEASURES, *capabilities_policy.MEASURES, *capabilities_sandbox.MEASURES),
)

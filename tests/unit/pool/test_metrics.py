from __future__ import annotations

from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from capsule.metrics import PoolMetrics
from capsule_pool import PoolEvent
from capsule_pool.stats import EventKind


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_every_event_changes_a_metric(kind: EventKind) -> None:
    registry = CollectorRegistry()
    metrics = PoolMetrics(registry)
    metrics(PoolEvent("science", kind, "open" if kind == "breaker" else "hit", 0.5))
    samples = {sample.name: sample for metric in registry.collect() for sample in metric.samples}
    changed = [sample for sample in samples.values() if sample.value and not sample.name.endswith("_created")]
    assert changed
    assert all(sample.labels["pool"] == "science" for sample in changed)

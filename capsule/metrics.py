"""Metrics for Prometheus: a hook for the events of pools. The library is loaded when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from capsule_pool import PoolEvent

_COUNTED = {
    "attempt": ("attempts", "Workers whose making began."),
    "waiting": ("waits", "Sessions that had to wait for a worker."),
    "left": ("left", "Sessions that gave up waiting."),
    "refused": ("refused", "Sessions that were refused while the breaker was open."),
    "released": ("released", "Workers that were given back."),
    "failed": ("failures", "Workers that could not be made."),
    "gone": ("gone", "Workers of which nothing is left."),
}
_STATES = ("closed", "half_open", "open")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PoolMetrics:
    """Pass an instance as `on_pool_event`. One instance may serve several clients; a registry takes one only."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = registry or REGISTRY

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"capsule_pool_{name}", text, ["pool", *labels], registry=registry)

        self._counters = {kind: counter(name, text) for kind, (name, text) in _COUNTED.items()}
        self._acquires = counter("acquires", "Sessions that got a worker; hit: a warm one, at once.", "outcome")
        self._evictions = counter("evictions", "Ready workers that the pool ended.", "cause")
        self._deaths = counter("deaths", "Workers that ended by themselves.", "cause")
        self._wait = Histogram(
            "capsule_pool_wait_seconds", "Until a session had a worker.", ["pool"], buckets=_SECONDS, registry=registry
        )
        self._creation = Histogram(
            "capsule_pool_creation_seconds", "To make a worker.", ["pool"], buckets=_SECONDS, registry=registry
        )
        self._breaker = Gauge(
            "capsule_pool_breaker_state", "0 closed, 1 half open, 2 open.", ["pool"], registry=registry
        )

    def __call__(self, event: PoolEvent) -> None:
        """Take an event in."""
        if event.kind in self._counters:
            self._counters[event.kind].labels(event.pool).inc()
        elif event.kind == "acquired":
            self._acquires.labels(event.pool, event.cause).inc()
            self._wait.labels(event.pool).observe(event.seconds)
        elif event.kind == "created":
            self._creation.labels(event.pool).observe(event.seconds)
        elif event.kind == "evicted":
            self._evictions.labels(event.pool, event.cause).inc()
        elif event.kind == "died":
            self._deaths.labels(event.pool, event.cause).inc()
        else:
            self._breaker.labels(event.pool).set(_STATES.index(event.cause))

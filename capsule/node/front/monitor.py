"""What a service tells who watches it: `/metrics` for Prometheus, `/healthz` and `/readyz` for who restarts it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from capsule.metrics import PoolMetrics
from capsule.node.front.http import Answer, HttpServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import Metric

    from capsule.node.front.front import Front

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that every Prometheus reads."""


class Monitor:
    """Made before the node, whose pools tell it what happens in them (`pools`); `start` serves."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._snapshot = Snapshot()
        self.pools = PoolMetrics(self._registry)
        ProcessCollector(registry=self._registry)
        self._registry.register(self._snapshot)
        self._front: Front | None = None
        self._server = HttpServer({"/metrics": self._metrics, "/healthz": self._health, "/readyz": self._readiness})

    async def start(self, front: Front, address: str) -> str:
        """Serve, and tell where. Raises NodeError."""
        self._front = front
        return await self._server.start(address)

    async def close(self) -> None:
        """Serve no more. Idempotent."""
        await self._server.close()

    async def _metrics(self) -> Answer:
        if self._front is not None:
            self._snapshot.take(self._front)
        # Writing it out takes milliseconds, and the pools' counters have locks: not in the loop.
        return Answer(200, await asyncio.to_thread(generate_latest, self._registry), CONTENT_TYPE)

    async def _health(self) -> Answer:
        """The loop runs, or nobody would read this."""
        return Answer(200, b"ok\n")

    async def _readiness(self) -> Answer:
        reasons = self._unready()
        if reasons:
            return Answer(503, "".join(f"{reason}\n" for reason in reasons).encode())
        return Answer(200, b"ready\n")

    def _unready(self) -> list[str]:
        front = self._front
        if front is None or not front.addresses:
            return ["starting"]
        if front.draining:
            return ["draining"]
        pools = front.node.info().pools
        away = front.ledger is not None and not front.ledger.works()
        return ["the store cannot commit"] * away + [
            f"the breaker of environment {name} is open" for name, one in pools.items() if one.breaker.state == "open"
        ]


class Snapshot(Collector):
    """A front at one moment, as metrics: taken in the event loop, written out on another thread."""

    def __init__(self) -> None:
        self._metrics: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """What was taken last."""
        return self._metrics

    def take(self, front: Front) -> None:
        """Look at the front."""
        sessions = [hosted.session for hosted in front.registry]
        waiting = sum(session.waiting for session in sessions)
        by_state: Counter[tuple[str, ...]] = Counter(
            (session.options.environment, session.state) for session in sessions
        )
        detached = sum(hosted.reader is None for hosted in front.registry)
        metrics: list[Metric] = [
            _gauge("clients", "Connections of clients.", front.clients),
            _gauge("draining", "1 while the node takes nothing new.", int(front.draining)),
            _gauge("sessions_detached", "Sessions that no connection reads.", detached),
            _gauge("executions_waiting", "Executions that have not begun.", waiting),
            _gauge("executions_running", "Executions that run.", sum(one.under_way for one in sessions) - waiting),
            _counter("offences", "Messages that could not be read or were not due.", front.offences),
            _counter("received_bytes", "Bytes of messages that came from clients.", front.received_bytes),
            _counter("sent_bytes", "Bytes of messages that went to clients.", front.sent_bytes),
            _labelled(GaugeMetricFamily, "sessions", "Sessions.", ("environment", "state"), by_state),
            _labelled(
                CounterMetricFamily,
                "sessions_opened",
                "Sessions so far.",
                ("environment",),
                _keys(front.registry.opened),
            ),
            _labelled(
                CounterMetricFamily,
                "executions",
                "Executions that have ended.",
                ("verdict",),
                _keys(front.registry.verdicts),
            ),
        ]
        self._metrics = metrics + _sizes(front) + _bridge(front) + _broker(front)


def _sizes(front: Front) -> list[Metric]:
    pools = front.node.info().pools
    return [
        _labelled(
            GaugeMetricFamily,
            f"pool_{name}",
            text,
            ("pool",),
            {(pool,): getattr(info, name) for pool, info in pools.items()},
        )
        for name, text in _SIZES.items()
    ]


def _bridge(front: Front) -> list[Metric]:
    """What is written down; nothing of a node that writes nothing down."""
    if front.ledger is None:
        return []
    info = front.ledger.bridge.info()
    return [
        _gauge("bridge_pending", "Promises without a verdict.", info.pending),
        _gauge("bridge_pending_high_water", "The most of them at once.", info.high_water),
        _gauge("bridge_oldest_seconds", "Since the oldest of them was made.", info.oldest),
        _gauge("bridge_commit_p50_seconds", "What a commit took, the median of the last 1,000.", info.commit_p50),
        _gauge("bridge_commit_p99_seconds", "What a commit took, all but 1 % of the last 1,000.", info.commit_p99),
        _gauge(
            "bridge_clock_ahead_seconds", "By how much the bridge's clock is ahead of the machine's.", info.clock_ahead
        ),
        _counter("bridge_accepted", "Promises that were made.", info.accepted),
        _counter("bridge_events", "Events that were logged.", info.events),
        _counter("bridge_dedup_hits", "Requests that found their promise.", info.dedup_hits),
        _counter("bridge_conflicts", "Requests whose key belonged to another one.", info.conflicts),
        _labelled(CounterMetricFamily, "bridge_verdicts", "Verdicts.", ("state",), _keys(info.verdicts)),
    ]


def _broker(front: Front) -> list[Metric]:
    """What became of calls of capabilities; none where there is no policy."""
    broker = front.node.broker
    counts = {} if broker is None else broker.checkpoint.counts
    text = "Calls of capabilities that have an outcome."
    return [_labelled(CounterMetricFamily, "capability_calls", text, ("capability", "outcome"), counts)]


_SIZES = {
    "idle": "Workers that are ready.",
    "starting": "Workers that are being made.",
    "in_use": "Workers that have a session.",
    "waiting": "Sessions that wait for a worker.",
}


def _keys(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): count for key, count in counts.items()}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"capsule_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"capsule_{name}", text, value=value)


def _labelled(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Mapping[tuple[str, ...], int],
) -> Metric:
    metric = family(f"capsule_{name}", text, labels=labels)
    for key, value in values.items():
        metric.add_metric(key, value)
    return metric

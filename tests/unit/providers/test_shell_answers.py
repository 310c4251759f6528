"""An answer of `shell`, whose outputs leave room for its fields."""

from __future__ import annotations

from capsule.broker.arguments import packed_size
from capsule.providers.shell.running import FIELDS_BYTES, Caps
from capsule.providers.shell.scope import RunResponse


def test_outputs_are_cut_so_that_the_fields_fit_into_the_answer_too() -> None:
    most, long = 2**63, "x" * 40
    numbers = dict.fromkeys(("stdout_bytes", "stderr_bytes", "stdout_dropped", "stderr_dropped"), most)
    fields = RunResponse(
        returncode=-64, signal=long, exceeded=long, duration=1e9, cpu_seconds=1e9, max_rss_bytes=most, **numbers
    )
    assert packed_size(fields.model_dump()) <= FIELDS_BYTES
    for allowed in (0, 100, 10_000):
        caps = Caps.of(2**20, allowed)
        assert 0 <= 2 * caps.framed <= max(0, allowed - FIELDS_BYTES)

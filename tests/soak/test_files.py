"""Names that are swapped while the provider of files uses them, many times: `make soak`. A line tells how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule import beneath
from capsule.providers.files import FilesProvider
from tests.acceptance.providers.calls import Caller
from tests.acceptance.providers.files.races import Attack

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = 10_000


@pytest.mark.parametrize("walk", ["in one call", "in steps"])
async def test_races_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walk: str) -> None:
    monkeypatch.setattr(beneath, "_HAS_OPENAT2", walk == "in one call")
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    provider = FilesProvider()
    attack = Attack(Caller(provider, {"roots": {"data": {"path": root, "mode": "rw"}}}), root, outside)
    await attack.run(ROUNDS)
    await provider.stop()
    met = sum(len(seen) for seen in attack.seen.values())
    print(f"\n{walk}: 0 escapes of {ROUNDS} calls; {met} kinds of outcomes met")

"""Names that become other things while they are used lead nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.providers.files.races import Attack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.providers.calls import Caller

pytestmark = pytest.mark.anyio


async def test_what_is_swapped_for_a_link_during_a_call_leads_nowhere(
    unwatched: Caller, root: Path, outside: Path
) -> None:
    """Processes swap them as fast as they can. A thousand calls for both ways to walk; tests/soak makes 20,000."""
    attack = Attack(unwatched, root, outside)
    await attack.run(500)

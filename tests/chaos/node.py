"""A node that is killed in a certain state: `python -m tests.chaos.node STATE SEED OTHERS`.

Before itself it kills so many others (workers, boxes, zygotes), as the seed decides.
"""

from __future__ import annotations

import asyncio
import sys

from tests.acceptance.pool.chaos import Chaos, Round, plan
from tests.acceptance.pool.support import LONG, warm


async def main(state: str, seed: int, others: int) -> None:
    """Comes to no end of its own."""
    async with warm(min_idle=3) as one:
        await Chaos(one, [Round(state, "node"), *plan(seed, others)], seed).run(LONG)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

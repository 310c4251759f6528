"""What the tests of saving have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsule import AsyncSession


async def does(session: AsyncSession, code: str) -> str:
    """Run code that must end well; its value as text."""
    result = await session.run(code)
    assert result.ok, result.error
    return result.text


async def checkpoint(session: AsyncSession, code: str) -> bytes:
    """What is saved of a session in which this code has run."""
    await does(session, code)
    report = await session.save()
    assert report.data is not None
    return report.data

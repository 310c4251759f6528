"""What a verdict tells of an error, whatever the error is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import begin, cell, ok, still_well

if TYPE_CHECKING:
    from capsule import AsyncSession


@pytest.mark.anyio
async def test_an_exception_with_a_huge_text_keeps_its_name(session: AsyncSession) -> None:
    result = await session.run("raise ValueError('x' * 10**8)")
    assert result.error is not None
    assert (result.verdict, result.error.name, result.error.code) == ("error", "ValueError", "execution_error")
    assert result.error.message.startswith("xxx")
    assert result.error.message.endswith("more characters)")
    await still_well(session)


@pytest.mark.anyio
async def test_tb_shows_the_users_frames_only(session: AsyncSession) -> None:
    await session.run("def f(): 1/0\nf()")
    result = await ok(session, "%tb")
    shown = result.stdout + result.stderr
    assert "ZeroDivisionError" in shown
    assert "capsule_kernels" not in shown


@pytest.mark.anyio
async def test_an_error_of_a_thread_shows_the_source(session: AsyncSession) -> None:
    code = """
        import threading
        def fails():
            return {}["missing"]
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
    """
    result = await ok(session, cell(code))
    assert 'return {}["missing"]' in result.stderr
    assert "Cell In[" in result.stderr


@pytest.mark.anyio
async def test_an_interrupted_shell_cell_says_so(session: AsyncSession) -> None:
    running = await begin(session, "%%bash\necho go\nexec sleep 1000")
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "verdict"), [(-2, "interrupted"), (130, "interrupted"), (255, "interrupted"), (3, "error")]
)
async def test_an_interrupted_child_makes_an_interrupted_cell(session: AsyncSession, status: int, verdict: str) -> None:
    """IPython's shell cells catch the interrupt, and say how the child has ended: 255 if asyncio did not see it."""
    code = f"""
        import subprocess, threading
        try:
            print("go", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            raise subprocess.CalledProcessError({status}, "bash")
    """
    running = await begin(session, cell(code))
    await session.interrupt()
    assert (await running.result()).verdict == verdict


@pytest.mark.anyio
async def test_full_progress_is_told_once(session: AsyncSession) -> None:
    from capsule.events import Progress

    execution = session.submit("for _ in range(1000): capsule_progress(5, 5)")
    events = [event async for event in execution.events() if isinstance(event, Progress)]
    assert 1 <= len(events) < 100

"""A provider's process that does not keep to the rules is ended, its calls are told, and the next ones get another."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capsule.broker.apart import proxy
from capsule.broker.apart.process import START_SECONDS
from capsule.broker.apart.proxy import ApartProvider
from capsule.broker.bodies import WINDOW
from capsule.broker.sdk import Asker, Call, Limits, Services
from capsule.testing import Example
from capsule.testing.rig import made
from capsule_protocol.errors import ArgumentError, CapabilityError, CapabilityFailed
from tests.acceptance.broker.events import children_with, found
from tests.acceptance.broker.wild import BREACHES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from capsule.broker.sdk import Chunk, Schema

pytestmark = pytest.mark.anyio

NO_SERVICES: Any = Services(secret=str, ask=None)  # type: ignore[arg-type]  # it gets none of them


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the provider lies, and files that say how it behaves."""
    shutil.copy(Path(__file__).parent / "wild.py", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@asynccontextmanager
async def wild(*, start: bool = True) -> AsyncIterator[ApartProvider]:
    provider = await asyncio.to_thread(ApartProvider, "wild:provider")
    try:
        if start:
            await provider.start(NO_SERVICES)
        yield provider
    finally:
        await provider.stop()


async def nothing() -> AsyncIterator[bytes]:
    return
    yield


async def dropped(_chunk: Chunk) -> None: ...


def call(
    provider: ApartProvider, how: str = "", operation: str = "do", send: Callable[[Chunk], Awaitable[None]] = dropped
) -> asyncio.Future[Schema]:
    descriptor = provider.descriptor
    request = descriptor.operations[operation].request.model_validate({"how": how})
    asker = Asker("s", "", "p", "default", "x")
    made = Call(operation, request, descriptor.scope(), asker, "key", Limits(), aiter(nothing()), send)
    return asyncio.ensure_future(provider.call(made))


async def failure(called: Awaitable[object]) -> CapabilityError:
    """What it comes to, long before anybody loses patience."""
    with pytest.raises(CapabilityError) as caught:
        async with asyncio.timeout(START_SECONDS / 2):
            await called
    return caught.value


async def test_it_is_ended_and_the_next_call_has_another(folder: Path) -> None:
    async with wild() as provider:
        for how in BREACHES:
            before: Any = await call(provider)
            error = await failure(call(provider, how))
            assert (error.code, error.retryable) == ("provider_unavailable", True), how
            assert "does not keep to the rules" in error.message, how
            after: Any = await call(provider)
            assert after.n != before.n, how


async def test_of_a_flood_no_more_is_held_than_was_asked_for(folder: Path) -> None:
    async with wild() as provider:
        assert provider._link is not None
        ended, taken = provider._link._stream.disconnected, 0

        async def send(chunk: Chunk) -> None:
            nonlocal taken
            taken += len(chunk)
            await asyncio.wait([ended])

        assert (await failure(call(provider, "flood", "give", send))).code == "provider_unavailable"
        assert 0 < taken <= WINDOW


async def test_an_answer_that_is_not_as_described_fails_its_call_only(folder: Path) -> None:
    async with wild() as provider:
        before: Any = await call(provider)
        error = await failure(call(provider, "otherwise"))
        assert (error.code, error.retryable) == ("capability_failed", False)
        assert error.message.startswith("wild:provider answered with something else than it describes: n: ")
        assert (await failure(call(provider, "nothing"))).code == "capability_failed"
        assert (await failure(call(provider, "huge"))).code == "capability_too_large"
        assert (await call(provider)).n == before.n  # type: ignore[attr-defined]


async def test_whether_what_has_effects_took_effect_is_not_known_when_it_dies(folder: Path) -> None:
    async with wild() as provider:
        waiting = call(provider, "wait", "pay")

        async def is_waiting() -> bool:
            return (folder / "waiting").exists()

        await found(folder, is_waiting)
        error = await failure(call(provider, "die", "pay"))
        assert (error.code, error.retryable) == ("capability_uncertain", False)
        assert "whether pay of wild:provider took effect is not known" in error.message
        assert (await failure(waiting)).code == "capability_uncertain"
        assert (await failure(call(provider, "die"))).code == "provider_unavailable"
        assert await call(provider, "", "pay")


async def test_one_that_cannot_start_again_is_asked_nothing(folder: Path) -> None:
    async with wild() as provider:
        (folder / "start").write_text("failed")
        assert (await failure(call(provider, "die"))).code == "provider_unavailable"
        for _ in range(2):
            assert (await failure(call(provider))).code == "wild_down"
            assert not children_with("wild:provider")
        (folder / "start").unlink()
        assert await call(provider)


@pytest.mark.parametrize("step", ["start", "health", "check"])
async def test_a_mistake_in_its_other_methods_is_told_at_once(folder: Path, step: str) -> None:
    (folder / step).write_text("it is broken")
    async with wild(start=False) as provider, asyncio.timeout(START_SECONDS / 2):
        if step == "start":
            with pytest.raises(CapabilityFailed) as caught:
                await provider.start(NO_SERVICES)
            said = caught.value.message
        elif step == "health":
            health = await provider.health()
            assert not health.ok
            said = health.detail
        else:
            with pytest.raises(ArgumentError) as refused:
                await provider.check(provider.descriptor.scope.model_validate({"check": "it is broken"}))
            said = refused.value.message
        assert "RuntimeError: it is broken" in said


async def test_one_that_was_stopped_stays_so(folder: Path) -> None:
    async with wild() as provider:
        await provider.stop()
        assert (await failure(call(provider))).code == "provider_unavailable"
        assert not (await provider.health()).ok
        assert not children_with("wild:provider")


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("admit badly", "capability_failed", "ZeroDivisionError: admit"),
        ("admit and die", "provider_unavailable", "has ended"),
        ("admit never", "provider_unavailable", "does not answer, and was ended"),
        ("me", "capability_outside_grant", "me is none of you"),
    ],
)
async def test_what_goes_wrong_before_a_call_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, code: str, told: str
) -> None:
    async with wild() as provider:
        if how == "admit never":
            monkeypatch.setattr(proxy, "ADMIT_SECONDS", 0.2)
        do = provider.descriptor.operations["do"].request
        scope = provider.descriptor.scope.model_validate({"hows": ("*",) if how.startswith("admit") else ("you",)})
        error = await failure(provider.admit("do", do.model_validate({"how": how}), scope))
        assert (error.code, told in error.message) == (code, True)
        error = await failure(provider.admit("do", do.model_validate({"how": 5}), scope))
        assert error.code == "capability_invalid"
        assert await call(provider)


async def test_what_was_done_is_told_when_it_comes_again_and_the_process_is_gone(folder: Path) -> None:
    async with wild(start=False) as provider, made(provider, {}, folder, {}, {}) as rig:
        done = await rig.call("pay", Example({}), number=1)
        assert done.error is None
        (folder / "start").write_text("failed")
        died = await rig.call("pay", Example({"how": "die"}), number=2)
        assert died.error is not None
        assert died.error.code == "capability_uncertain"
        again = await rig.call("pay", Example({}), number=1)
        assert (again.recorded, again.value) == (True, done.value)
        again = await rig.call("pay", Example({"how": "die"}), number=2)
        assert again.error is not None
        assert (again.recorded, again.error.code) == (True, "capability_uncertain")
        other = await rig.call("pay", Example({}), number=3)
        assert other.error is not None
        assert other.error.code == "wild_down"

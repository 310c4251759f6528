"""What the code of a session does is in the audit trail: whole, without secrets, or it is not done."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.broker.audit.reading import Wanted, entries
from capsule.broker.audit.verify import verify
from capsule.broker.explaining import judge
from capsule.broker.registry import load as load_providers
from capsule.broker.replaying import asked
from tests.acceptance.broker.test_calls import refused, value
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.broker.conftest import Granting

pytestmark = pytest.mark.anyio

GREET = '[[grants]]\nname = "greet"\ncapabilities = ["acme.greet"]\nscope.names = ["you"]\n'


def marking(folder: Path, more: str = "") -> str:
    return f'{more}[[grants]]\nname = "mark"\ncapabilities = ["acme.mark"]\nscope.marks = "{folder}/marks"\n'


@contextmanager
def full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file in this directory takes any more."""
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


async def test_calls_are_in_the_trail_with_who_what_by_which_grant_and_what_became_of_it(
    granting: Granting, tmp_path: Path
) -> None:
    folder = tmp_path / "audit"
    async with (
        granting(GREET, broker={"audit": folder}) as node,
        node.client.session(name="report") as session,
    ):
        await value(session, "caps.acme.greet('you')")
        await refused(session, "caps.acme.greet('me')")
        await refused(session, "caps.acme.mark('x')")
        policy = node.broker.policy
    assert verify(folder).findings == []
    first, second, third = (entry.record for entry in entries(folder, Wanted(kind="call")))
    assert (first.outcome, first.code, first.capability, first.arguments) == (
        "accepted",
        "",
        "acme.greet",
        {"name": "you"},
    )
    assert (first.grant, first.line, first.policy) == ("greet", 5, policy.digest)
    assert (first.session_name, first.environment) == ("report", "default")
    assert first.principal
    assert first.execution
    assert first.duration > 0
    assert (second.outcome, second.code, second.arguments) == ("denied", "capability_outside_grant", {"name": "me"})
    assert (third.outcome, third.code, third.grant) == ("denied", "capability_denied", "")


async def test_a_recorded_call_is_explained_as_it_was_decided(granting: Granting, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    async with granting(GREET, broker={"audit": folder}) as node, node.client.session() as session:
        for code in ("greet(name='you')", "greet(name='me')", "mark(text='x')", "nothing()"):
            await session.run(f"caps.acme.{code}")
        policy = node.broker.policy
    providers = {name: found.provider for name, found in load_providers(("acme_caps",)).found.items()}
    records = [entry.record for entry in entries(folder, Wanted(kind="call"))]
    assert len(records) == 4
    judged = [await judge(policy, providers, asked(record)) for record in records]
    assert [one.code for one in judged] == [record.code for record in records]
    for provider in providers.values():
        await provider.stop()


async def test_no_secret_is_in_any_file_of_the_trail(granting: Granting, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    async with granting(marking(tmp_path), broker={"audit": folder}) as node, node.client.session() as session:
        await value(session, "caps.acme.mark('x', password='hunter2')")
        await refused(session, "caps.acme.mark('x', password='hunter2', seconds='no number')")
        await refused(session, "caps.acme.greet('x', password='hunter2')")
    assert "x" in (tmp_path / "marks").read_text()
    found = [entry.record.arguments for entry in entries(folder, Wanted(kind="call", outcome="accepted"))]
    assert found == [{"text": "x", "password": {"secret_bytes": 7}}]
    for file in folder.iterdir():
        assert b"hunter2" not in file.read_bytes(), file


async def test_what_cannot_be_recorded_is_not_done_until_there_is_room(
    granting: Granting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "audit"
    async with granting(marking(tmp_path), broker={"audit": folder}) as node, node.client.session() as session:
        await value(session, "caps.acme.mark('before')")
        with full(folder, monkeypatch):
            assert "audit_unavailable" in await refused(session, "caps.acme.mark('meanwhile')")
            assert "audit_unavailable" in await refused(session, "caps.acme.greet('not granted')")
        await value(session, "caps.acme.mark('after')")
    assert (tmp_path / "marks").read_text() == "before\nafter\n"
    assert verify(folder).findings == []
    (resumed,) = (entry.record for entry in entries(folder, Wanted(kind="audit", outcome="resumed")))
    assert resumed.details is not None
    assert resumed.details["missed"] >= 2


async def test_what_was_done_and_could_not_be_recorded_is_not_to_be_done_again(
    granting: Granting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marks = tmp_path / "audit", tmp_path / "marks"
    async with granting(marking(tmp_path), broker={"audit": folder}) as node, node.client.session() as session:
        code = (
            "try: caps.acme.mark('x', seconds=3)\nexcept Exception as e: found = f'{e.code} {e.retryable} {e}'\nfound"
        )
        running = session.submit(code)
        async with asyncio.timeout(LONG):
            while not marks.exists():
                await asyncio.sleep(0.005)
            with full(folder, monkeypatch):
                text = str((await running.result()).text)
    assert text.startswith("'audit_unavailable False acme.mark was made, and what became of it cannot be told")


async def test_a_call_that_takes_too_long_may_be_made_again_only_if_it_changes_nothing(
    granting: Granting, tmp_path: Path
) -> None:
    wait = '[[grants]]\nname = "wait"\ncapabilities = ["acme.wait"]\n'
    policy = marking(tmp_path, wait) + "limits = { timeout = 0.3 }\n"
    async with granting(policy) as node, node.client.session() as session:
        for call, expected in ("wait()", True), ("mark('x', seconds=600)", False):
            code = f"try: caps.acme.{call}\nexcept Exception as error: found = error.code, error.retryable\nfound"
            assert await value(session, code) == str(("capability_timeout", expected))


async def test_where_it_may_what_cannot_be_recorded_is_done_and_counted(
    granting: Granting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "audit"
    text = marking(tmp_path, '[audit]\non_failure = "continue"\n')
    async with granting(text, broker={"audit": folder}) as node, node.client.session() as session:
        with full(folder, monkeypatch):
            await value(session, "caps.acme.mark('meanwhile')")
        await value(session, "caps.acme.mark('after')")
    assert (tmp_path / "marks").read_text() == "meanwhile\nafter\n"
    (resumed,) = (entry.record for entry in entries(folder, Wanted(kind="audit", outcome="resumed")))
    assert resumed.details == {"missed": 2}  # that it begins, and that it was accepted

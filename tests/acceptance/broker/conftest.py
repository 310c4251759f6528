"""A node with a provider of a package of its own, and a policy that a test writes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from capsule import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

PACKAGE = Path(__file__).parent / "package"
HEAD = 'version = 1\nname = "test"\npack = "perf"\nsandbox = "none"\n'


class Granted:
    """What a test needs: a client whose node has a policy, the policy's file, the records so far."""

    def __init__(self, client: AsyncClient, policy: Path) -> None:
        self.client = client
        self.policy = policy

    @property
    def broker(self) -> Any:
        """The node's."""
        return self.client._started().broker  # type: ignore[union-attr]

    @property
    def records(self) -> list[Any]:
        """Of calls, in the audit trail."""
        return [record for record in self.broker.checkpoint.recorder.audit.records if record.kind == "call"]

    @property
    def acme(self) -> Any:
        """The provider."""
        return self.broker.checkpoint.providers["acme"]


Granting: TypeAlias = "Callable[..., AbstractAsyncContextManager[Granted]]"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `acme_caps` is installed."""
    monkeypatch.syspath_prepend(str(PACKAGE))


@pytest.fixture
def granting(tmp_path: Path, package: None) -> Granting:
    """Opens a node whose policy says this."""

    @asynccontextmanager
    async def open_node(text: str, **options: Any) -> AsyncIterator[Granted]:
        policy = tmp_path / "policy.toml"
        policy.write_text(HEAD + text, encoding="utf-8")
        broker = {"policy": policy, "providers": ("acme_caps",), **options.pop("broker", {})}
        async with AsyncClient(broker=broker, **options) as client:
            yield Granted(client, policy)

    return open_node

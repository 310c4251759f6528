"""No root of a grant has in it what is the node's own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from capsule.broker.broker import Broker
from capsule.cli.policy import policy
from capsule.config import NodeConfig
from capsule.settings.loading import read
from capsule_protocol.errors import ArgumentError
from tests.acceptance.broker.conftest import HEAD

pytestmark = pytest.mark.anyio

GRANT = '[[grants]]\nname = "own"\ncapabilities = ["{provider}.*"]\n{more}scope.roots.top = {{ path = "{root}" }}\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a node has all that it has, each thing in a directory of its own, and `data` beside."""
    for name in ("boxes", "store", "run/inner", "state/capsule/keys", "audit/inner", "policy", "secrets", "config"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "audit").chmod(0o700)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "link").symlink_to(tmp_path / "secrets")
    (tmp_path / "secrets/key").write_text("hunter2")
    return tmp_path


def configured(place: Path, root: Path, provider: str = "files") -> NodeConfig:
    more = 'scope.sandbox = "none"\n' if provider == "shell" else ""
    text = HEAD + GRANT.format(provider=provider, root=root, more=more)
    (place / "policy/policy.toml").write_text(text)
    file = place / "config/capsule.toml"
    file.write_text(
        f'directory = "{place}/boxes"\n[serve]\ndirectory = "{place}/run"\n[store]\npath = "{place}/store/store.db"\n'
        f'[broker]\npolicy = "{place}/policy/policy.toml"\naudit = "{place}/audit"\n'
        f'secrets.key = "file:{place}/secrets/key"\n'
    )
    return read(file).config


@pytest.mark.parametrize("provider", ["files", "shell"])
@pytest.mark.parametrize(
    "root",
    [
        "store",
        "run",
        "run/inner",
        "boxes",
        "state",
        "state/capsule/keys",
        "policy",
        "audit",
        "audit/inner",
        "secrets",
        "config",
        "link",
        ".",
        "/",
        "store/../audit",
    ],
)
async def test_a_root_that_has_something_of_the_node_in_it_is_refused(place: Path, root: str, provider: str) -> None:
    broker = Broker(configured(place, place / root, provider))
    with pytest.raises(ArgumentError) as caught:
        await broker.start()
    assert caught.value.code == "root_exposes_node"
    assert caught.value.details["root"] == str(place / root)
    assert caught.value.details["path"] in caught.value.message
    assert "grants.own.scope.roots.top.path" in caught.value.message
    await broker.close()


async def test_one_beside_it_is_not_and_a_worse_policy_leaves_the_old_one_in_force(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(place, place / "data")
    broker = Broker(config)
    await broker.start()
    before = broker.policy.digest
    await broker.reload(configured(place, place / "audit"))
    assert broker.policy.digest == before
    assert str(place / "audit") in caplog.text
    await broker.close()


async def test_a_node_without_a_configuration_keeps_its_own_too(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    for root in (tempfile.gettempdir(), "/", tmp_path):
        policy.write_text(HEAD + GRANT.format(provider="files", root=root, more=""))
        broker = Broker(NodeConfig(broker={"policy": policy}))
        with pytest.raises(ArgumentError) as caught:
            await broker.start()
        assert caught.value.code == "root_exposes_node"
        await broker.close()


def test_a_policy_is_checked_for_it_beforehand(place: Path) -> None:
    configured(place, place / "link")
    told = CliRunner().invoke(policy, ["check", "--scopes", "--config", str(place / "config/capsule.toml")])
    assert str(place / "secrets/key") in told.output

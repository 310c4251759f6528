"""The store of keys: what it keeps, and what it refuses."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from capsule.keys import fingerprint, public_key, read
from capsule.node.auth.keystore import KeyStore
from capsule.node.auth.principals import ROLES, Principal, principal_of_credentials
from capsule.node.auth.tokens import issue
from capsule_protocol.errors import ArgumentError, NodeError


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys")


def new(store: KeyStore, name: str, **given: object) -> str:
    options = {"principal": name, "role": "user", "kind": "key", "expires": None} | given
    return issue(store, 1000.0, name=name, **options)[1]


def test_a_key_is_found_by_its_fingerprint_and_holds_the_servers_key(store: KeyStore) -> None:
    shown = read(new(store, "ada"))
    (record,) = store.records()
    assert record.fingerprint == fingerprint(public_key(shown.secret))
    assert shown.server == store.server_public()


def test_a_token_is_kept_as_a_hash(store: KeyStore) -> None:
    shown = read(new(store, "t", kind="token"))
    (record,) = store.records()
    assert record.fingerprint == fingerprint(shown.token)
    assert shown.token[3:] not in (store.directory / "keys.json").read_text()


def test_a_record_is_valid_until_its_time_or_its_revocation(store: KeyStore) -> None:
    new(store, "a", expires=2000.0)
    (record,) = store.records()
    assert [record.state(now) for now in (1999.9, 2000.0)] == ["valid", "expired"]
    assert store.revoke("a", 1500.0).state(1600.0) == "revoked"


def test_a_name_is_taken_until_it_is_revoked(store: KeyStore) -> None:
    new(store, "a")
    with pytest.raises(ArgumentError, match="there is a key 'a'"):
        new(store, "a")
    store.revoke("a", 1.0)
    new(store, "a")
    assert [record.state(2.0) for record in store.records()] == ["revoked", "valid"]
    with pytest.raises(ArgumentError, match="allowed: a"):
        store.revoke("b", 1.0)


@pytest.mark.parametrize("name", ["", "uid:0", "a/b", "a b", "-x", "x" * 65, "é"])
def test_names_that_could_be_taken_for_others_are_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(ArgumentError):
        new(store, name)
    with pytest.raises(ArgumentError):
        new(store, "ok", principal=name)


def test_two_that_write_at_once_lose_nothing(store: KeyStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: new(store, f"k{number}"), range(24)))
    assert len(store.records()) == 24
    assert {path.name for path in store.directory.iterdir()} == {"keys.json", "keys.lock", "server.key"}


@pytest.mark.parametrize("file", ["keys.json", "server.key"])
def test_a_file_that_others_can_read_is_refused(store: KeyStore, file: str) -> None:
    new(store, "a")
    (store.directory / file).chmod(0o644)
    with pytest.raises(NodeError, match="chmod 600"):
        new(store, "b")


def test_a_directory_that_others_can_enter_or_a_link_to_one_is_refused(store: KeyStore, tmp_path: Path) -> None:
    new(store, "a")
    store.directory.chmod(0o755)
    with pytest.raises(NodeError, match="chmod 700"):
        new(store, "b")
    store.directory.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(store.directory)
    with pytest.raises(NodeError):
        new(KeyStore(link), "b")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [{}]}', '{"version": 2}', "\xff"])
def test_a_store_that_cannot_be_read_is_an_error_and_never_an_empty_one(store: KeyStore, text: str) -> None:
    new(store, "a")
    path = store.directory / "keys.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(NodeError):
        store.records()
    with pytest.raises(NodeError):
        new(store, "b")
    assert path.read_bytes() == text.encode("latin-1")


def test_the_file_holds_what_the_reference_says(store: KeyStore) -> None:
    new(store, "a")
    data = json.loads((store.directory / "keys.json").read_text())
    assert set(data["keys"][0]) == {"name", "principal", "role", "kind", "fingerprint", "created"}


def test_each_role_may_what_the_one_before_it_may() -> None:
    kinds = ["hello", "info", "resume", "open", "execute", "kill_session", "drain"]
    allowed = [{kind for kind in kinds if Principal("p", role).may(kind)} for role in ROLES]
    assert allowed[0] == {"hello"}
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(allowed))
    assert allowed[1] == {"hello", "info", "resume"}
    assert "drain" not in allowed[2]
    assert allowed[3] == set(kinds)


def test_a_group_that_does_not_exist_is_told() -> None:
    with pytest.raises(NodeError, match="no group"):
        principal_of_credentials(65_533, 65_533, "no-such-group")
    assert principal_of_credentials(65_533, 65_533, None) is None

"""Providers are found by name, let in only if they are allowed, and refused with what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from capsule.broker.registry import check, load
from capsule.broker.sdk import Descriptor, Empty, Health, Operation
from capsule_protocol.errors import ArgumentError
from tests.unit.broker.shapes import FILES, SYSTEM

MODULE = """
from capsule.broker.sdk import Descriptor, Empty, Health, Operation

LOADED = True

class Provider:
    descriptor = Descriptor({name!r}, "2.1", {{"add": Operation("Add", Empty, Empty)}})
    async def start(self, services): ...
    async def health(self): return Health(ok=True)
    async def stop(self): ...
    def check(self, scope): ...
    def admit(self, operation, request, scope): ...
    async def call(self, call): return Empty()

def make():
    return Provider()
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports is gone afterwards."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"acme", "acmeister"}:
            del sys.modules[name]


def install(folder: Path, module: str, code: str, attribute: str = "make") -> None:
    """A distribution with one provider, as pip would leave it."""
    info = folder / f"{module.replace('.', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[capsule.providers]\nx = {module}:{attribute}\n")
    file = folder / (module.replace(".", "/") + ".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(dedent(code))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_one_that_is_allowed_is_loaded_and_it_is_told_from_where(site: Path) -> None:
    install(site, "acme.tools", MODULE.format(name="adder"))
    found = load(["acme"], ours=()).found["adder"]
    assert (found.origin, found.distribution) == ("acme.tools:make", "acme.tools 1.5")
    assert load(["acme.tools"], ours=()).descriptors()["adder"].version == "2.1"


@pytest.mark.parametrize("allowed", [(), ("acm",), ("acme.tool",), ("acme.tools.more",), ("*",), ("",)])
def test_one_that_is_not_allowed_is_not_even_imported(site: Path, allowed: tuple[str, ...]) -> None:
    install(site, "acme.tools", "raise SystemExit('imported')")
    registry = load(allowed, ours=())
    assert registry.found == {}
    assert registry.left == ("acme.tools:make",)
    assert "acme.tools" not in sys.modules


def test_a_prefix_ends_at_a_dot(site: Path) -> None:
    install(site, "acmeister", MODULE.format(name="adder"))
    assert load(["acme"], ours=()).left == ("acmeister:make",)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        ("def make(): raise RuntimeError('no')", "cannot be loaded: RuntimeError: no"),
        ("raise SystemExit(5)", "cannot be loaded: SystemExit: 5"),
        ("make = 5", "cannot be loaded: TypeError"),
        ("other = 5", "cannot be loaded: AttributeError"),
        ("def make(): return 5", "has no descriptor"),
    ],
)
def test_one_that_cannot_be_loaded_is_refused(site: Path, code: str, told: str) -> None:
    install(site, "acme.tools", code)
    with pytest.raises(ArgumentError) as caught:
        load(["acme"], ours=())
    assert caught.value.code == "provider_refused"
    assert "acme.tools:make" in caught.value.message
    assert told in caught.value.message


def test_two_of_one_name_are_refused(site: Path) -> None:
    install(site, "acme.one", MODULE.format(name="adder"))
    install(site, "acme.two", MODULE.format(name="adder"))
    with pytest.raises(ArgumentError, match=r"is called 'adder', as acme\.one:make is"):
        load(["acme"], ours=())


def test_those_of_ours_that_there_are_not_do_not_exist() -> None:
    assert load(ours=("nothing",)).found == {}


# What a provider must be


class Whole:
    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor

    async def start(self, services: Any) -> None: ...
    async def health(self) -> Health:
        return Health(ok=True)

    async def stop(self) -> None: ...
    def check(self, scope: Any) -> None: ...
    def admit(self, operation: str, request: Any, scope: Any) -> None: ...
    async def call(self, call: Any) -> Any: ...


def changed(**values: Any) -> Descriptor:
    return replace(SYSTEM, **values)


REFUSED = [
    (changed(sdk="2.0"), "was written for version 2.0 of the interface, and this node has 1.0; allowed: 1.0 to 1.0"),
    (changed(sdk="0.9"), "was written for version 0.9"),
    (changed(sdk="1.1"), "needs what came with version 1.1 of the interface, and this node has 1.0"),
    (changed(sdk="one"), "names no version"),
    (changed(sdk="1.0\n"), "names no version"),
    (
        changed(needs=frozenset({"gpu", "bodies", "quanta"})),
        "needs gpu, quanta, which this node has not; allowed: bodies",
    ),
    (changed(name="System"), "is called 'System'"),
    (changed(name="a.b"), "is called 'a.b'"),
    (changed(scope=dict), "has a scope that is no schema"),
    (changed(operations={"Get": Operation("", Empty, Empty)}), "has an operation 'Get'"),
    (changed(operations={"get": None}), "has an operation 'get' that is none"),
    (changed(operations={"get": Operation("", dict, Empty)}), "without schemas"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("descriptor", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_one_that_this_node_cannot_use_is_refused_with_what_is_missing(descriptor: Descriptor, told: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        check(Whole(descriptor), "acme:make")
    assert caught.value.code == "provider_refused"
    assert told in caught.value.message


def test_one_that_is_whole_is_not_refused() -> None:
    check(Whole(FILES), "acme:make")
    check(Whole(changed(needs=frozenset({"bodies", "secrets"}))), "acme:make")


@pytest.mark.parametrize("method", ["start", "health", "stop", "check", "admit", "call"])
def test_one_without_a_method_is_refused(method: str) -> None:
    provider = Whole(FILES)
    setattr(provider, method, None)
    with pytest.raises(ArgumentError, match=f"has no method '{method}'"):
        check(provider, "acme:make")


@pytest.mark.parametrize("method", ["start", "health", "stop", "call"])
def test_one_that_would_block_is_refused(method: str) -> None:
    provider = Whole(FILES)
    setattr(provider, method, lambda *_: None)
    with pytest.raises(ArgumentError, match="not asynchronous"):
        check(provider, "acme:make")

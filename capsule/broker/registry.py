"""Which providers a node has: those of ours, and those of others that its operator has let in.

A provider of others is the entry point of a distribution, in the group `capsule.providers`. Its module is imported only
if it is allowed: importing is running its code in the node.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from capsule.broker.apart.proxy import ApartProvider
from capsule.broker.sdk import SDK_VERSION, Descriptor, Limits, Operation, Provider, Schema, ScopeSchema
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.metadata import EntryPoint

GROUP = "capsule.providers"
APART = "capsule.providers.apart"
"""Of those that run in a process of their own; their modules are never imported here."""
APART_FEATURES = frozenset({"bodies"})
OURS = ("files", "http", "shell", "system", "ask")
FACTORY = "provider"
"""What makes a provider, in a module of ours."""
FEATURES = frozenset({"bodies", "secrets"})
"""What a provider may need of the node."""
METHODS = ("start", "health", "stop", "check", "admit", "call")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Found:
    """A provider, and where it comes from: `module:name`, and the distribution with its version, "" for ours."""

    provider: Provider
    origin: str
    distribution: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """The providers of a node by name. `left`: origins of those that are installed and not allowed."""

    found: dict[str, Found]
    left: tuple[str, ...] = ()

    def descriptors(self) -> dict[str, Descriptor]:
        """What they say of themselves, as policies are compiled for."""
        return {name: one.provider.descriptor for name, one in self.found.items()}

    async def close(self) -> None:
        """End those that have a process from the moment on in which they are loaded. Idempotent."""
        for one in self.found.values():
            if isinstance(one.provider, ApartProvider):
                await one.provider.stop()


def load(allowed: Sequence[str] = (), ours: Iterable[str] = OURS) -> Registry:
    """All providers of ours that there are, and those of others whose modules are `allowed`.

    `allowed` has prefixes of modules: `acme` lets in `acme` and `acme.tools`, and not `acmeister`. Raises ArgumentError
    `provider_refused`.
    """
    found: dict[str, Found] = {}
    left: list[str] = []
    try:
        _load(found, left, allowed, ours)
    except BaseException:
        for one in found.values():
            if isinstance(one.provider, ApartProvider):
                one.provider.kill()
        raise
    return Registry(found, tuple(left))


def _load(found: dict[str, Found], left: list[str], allowed: Sequence[str], ours: Iterable[str]) -> None:
    for name in ours:
        module = f"capsule.providers.{name}"
        if find_spec(module) is not None:
            origin = f"{module}:{FACTORY}"
            found[name] = Found(_made(origin, partial(_factory, module)), origin)
    points = [*entry_points(group=GROUP), *entry_points(group=APART)]
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        if not _is_allowed(point.module, allowed):
            left.append(point.value)
            continue
        provider = _apart(point.value) if point.group == APART else _trusted(point)
        name = provider.descriptor.name
        if name in found:
            if isinstance(provider, ApartProvider):
                provider.kill()
            raise _refused(point.value, f"is called {name!r}, as {found[name].origin} is")
        found[name] = Found(provider, point.value, _distribution(point))


def _trusted(point: EntryPoint) -> Provider:
    provider = _made(point.value, point.load)
    if provider.descriptor.untrusted:
        raise _refused(point.value, "says that it is not to be trusted", allowed=f"an entry point of the group {APART}")
    return provider


def _apart(origin: str) -> ApartProvider:
    provider = ApartProvider(origin)
    try:
        check(provider, origin, APART_FEATURES)
    except BaseException:
        provider.kill()
        raise
    return provider


def check(provider: Any, origin: str, features: frozenset[str] = FEATURES) -> None:
    """Raise ArgumentError `provider_refused` if it is no provider that this node can use."""
    descriptor = getattr(provider, "descriptor", None)
    if not isinstance(descriptor, Descriptor):
        raise _refused(origin, "has no descriptor", allowed="a Descriptor of capsule.broker.sdk")
    _negotiate(descriptor, origin, features)
    for method in METHODS:
        if not callable(getattr(provider, method, None)):
            raise _refused(origin, f"has no method {method!r}", allowed=", ".join(METHODS))
    for method in ("start", "health", "stop", "call"):
        if not inspect.iscoroutinefunction(getattr(provider, method)):
            raise _refused(origin, f"has a {method!r} that is not asynchronous", allowed="async def")
    if not _NAME.fullmatch(descriptor.name):
        raise _refused(origin, f"is called {descriptor.name!r}", allowed="a name of a-z, 0-9 and _")
    if not (isinstance(descriptor.scope, type) and issubclass(descriptor.scope, ScopeSchema)):
        raise _refused(origin, "has a scope that is no schema", allowed="a subclass of ScopeSchema")
    for name, operation in descriptor.operations.items():
        _check_operation(name, operation, origin)


def _negotiate(descriptor: Descriptor, origin: str, features: frozenset[str]) -> None:
    wanted, own = _VERSION.fullmatch(descriptor.sdk), _VERSION.fullmatch(SDK_VERSION)
    assert own is not None
    if wanted is None:
        raise _refused(
            origin, f"names no version of the interface: {descriptor.sdk!r}", allowed=f"one like {SDK_VERSION}"
        )
    major, minor = int(wanted[1]), int(wanted[2])
    if major != int(own[1]):
        text = f"was written for version {descriptor.sdk} of the interface, and this node has {SDK_VERSION}"
        raise _refused(origin, text, allowed=f"{own[1]}.0 to {SDK_VERSION}")
    if minor > int(own[2]):
        text = f"needs what came with version {descriptor.sdk} of the interface, and this node has {SDK_VERSION}"
        raise _refused(origin, text, allowed=f"{own[1]}.0 to {SDK_VERSION}: update Capsule, or take an older provider")
    missing = sorted(descriptor.needs - features)
    if missing:
        raise _refused(
            origin, f"needs {', '.join(missing)}, which this node has not", allowed=", ".join(sorted(features))
        )


def _check_operation(name: str, operation: Any, origin: str) -> None:
    if not _NAME.fullmatch(name):
        raise _refused(origin, f"has an operation {name!r}", allowed="a name of a-z, 0-9 and _")
    if not isinstance(operation, Operation) or not isinstance(operation.limits, Limits):
        raise _refused(origin, f"has an operation {name!r} that is none", allowed="an Operation of capsule.broker.sdk")
    for schema in (operation.request, operation.response):
        if not (isinstance(schema, type) and issubclass(schema, Schema)):
            raise _refused(origin, f"has an operation {name!r} without schemas", allowed="subclasses of Schema")


def _made(origin: str, load_factory: Callable[[], Any]) -> Provider:
    try:
        provider = load_factory()()
    except (Exception, SystemExit) as error:
        raise _refused(origin, f"cannot be loaded: {type(error).__name__}: {error}") from error
    check(provider, origin)
    made: Provider = provider
    return made


def _factory(module: str) -> Any:
    return getattr(import_module(module), FACTORY)


def _is_allowed(module: str, allowed: Sequence[str]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in allowed)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""


def _refused(origin: str, message: str, allowed: str | None = None) -> ArgumentError:
    return ArgumentError(origin, message, allowed=allowed, code="provider_refused")

"""The provider: its lifecycle, what it checks before a call, and the time that a call may take."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio

from capsule.broker.sdk import Descriptor, Health
from capsule.providers.http import hops
from capsule.providers.http.names import Names, system
from capsule.providers.http.schemas import FETCH, STREAM, Fetched
from capsule.providers.http.scope import Scope, reference
from capsule.providers.http.trust import Trust, check_file
from capsule_protocol.errors import ArgumentError, CapabilityError, CapabilityFailed, CapabilityTimeout

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.broker.sdk import Call, Provider, Services
    from capsule.providers.http.exchange import Exchange
    from capsule.providers.http.names import Resolve

DESCRIPTOR = Descriptor("http", "1.0", {"fetch": FETCH, "stream": STREAM}, scope=Scope)
_EXCHANGE = "capsule.providers.http.exchange"


class HttpProvider:
    """Requests over HTTP. Nothing is kept from one call to the next: no connection, no cookie."""

    def __init__(self, *, resolve: Resolve = system, ca_file: Path | None = None) -> None:
        """`resolve(host, port)` tells addresses, on a thread; `ca_file`: authorities beside the public ones."""
        self._names = Names(resolve)
        self._trust = Trust(ca_file)
        self._services: Services | None = None
        self._importing = asyncio.Lock()

    @property
    def descriptor(self) -> Descriptor:
        """Always the same."""
        return DESCRIPTOR

    async def start(self, services: Services) -> None:
        """Only the secrets are needed; all else is made when it is used."""
        self._services = services

    async def health(self) -> Health:
        """Whether it was started; it depends on nothing else."""
        return Health(self._services is not None, "" if self._services else "not started")

    async def stop(self) -> None:
        """Nothing is open between calls."""
        self._services = None

    def check(self, scope: Any) -> None:
        """Raise ArgumentError if the file of authorities cannot be read, or a secret is not known."""
        if scope.ca_file is not None:
            try:
                check_file(scope.ca_file)
            except OSError as error:
                message = f"{scope.ca_file} cannot be read: {error}"
                raise ArgumentError("scope.ca_file", message, allowed="a file of certificates in PEM") from error
        for index, target in enumerate(scope.allow if self._services else ()):
            for text in (*target.secrets.headers.values(), *target.secrets.query.values()):
                self._check_secret(f"scope.allow[{index}].secrets", text)

    def admit(self, operation: str, request: Any, scope: Any) -> None:  # noqa: ARG002 (both are judged alike)
        """Raise CapabilityDenied if no entry of the scope allows the request."""
        hops.allowed(hops.first(request), scope)

    async def call(self, call: Call) -> Fetched:
        """Send the request, and those that redirects ask for. Raises CapabilityError, never with a secret in it."""
        times = (call.request.timeout, call.scope.total_time, call.limits.timeout)
        most = min((time for time in times if time is not None), default=None)
        try:
            async with asyncio.timeout(most):
                exchange = await self._exchange()
                return await exchange(call, self._names, self._trust, self._secret).run()
        except CapabilityError:
            raise
        except TimeoutError as error:
            hop = hops.first(call.request)
            message = f"{hop.place.plain}: it took longer than {most or 0:g} s"
            raise CapabilityTimeout("capability_timeout", message, retryable=hop.harmless) from error

    async def _exchange(self) -> type[Exchange]:
        # httpx takes a tenth of a second to import: nodes that make no request do without, and no other call waits.
        if _EXCHANGE not in sys.modules or self._importing.locked():
            async with self._importing:
                await anyio.to_thread.run_sync(import_module, _EXCHANGE)
        from capsule.providers.http.exchange import Exchange

        return Exchange

    def _secret(self, name: str) -> str:
        if self._services is None:
            raise CapabilityFailed("provider_unavailable", "the provider http was not started")
        return self._services.secret(name)

    def _check_secret(self, argument: str, text: str) -> None:
        name = reference(text).name
        try:
            self._secret(name)
        except CapabilityFailed as error:
            message = f"there is no secret {name!r}"
            raise ArgumentError(argument, message, allowed="names of secrets of this node") from error


def provider(*, resolve: Resolve = system, ca_file: Path | None = None) -> Provider:
    """The provider `http`."""
    return HttpProvider(resolve=resolve, ca_file=ca_file)

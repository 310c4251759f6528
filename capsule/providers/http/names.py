"""Looks names up, so that a server of names that does not answer holds nobody up but who asked."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, TypeAlias

from capsule.providers.http.addresses import refused
from capsule.providers.http.hosts import literal
from capsule.providers.http.scope import address_denied
from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule.providers.http.addresses import Address, Network
    from capsule.providers.http.urls import Place

    Resolve: TypeAlias = Callable[[str, int], Iterable[str]]

LOOKUPS = 64
LOOKUPS_OF_SESSION = 8
ADDRESSES = 64


def system(host: str, port: int) -> list[str]:
    """The addresses that the machine's own resolver tells."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Names:
    """Addresses of names, each looked up on a thread of its own.

    A lookup cannot be broken off: a thread whose caller has gone counts until it ends, or a session could have any
    number of them. They are daemons, as the end of the process does not wait for a server of names.
    """

    def __init__(self, resolve: Resolve = system) -> None:
        self._resolve = resolve
        self._running: Counter[str] = Counter()
        self._changed = asyncio.Event()

    async def addresses(self, place: Place, opened: tuple[Network, ...], session: str) -> list[Address]:
        """Where a host is. Raises CapabilityDenied if any of its addresses may not be reached, CapabilityFailed."""
        own = literal(place.host)
        found = [own] if own is not None else await self._look_up(place, session)
        for address in found:
            kind = refused(address, opened) or (
                "this machine" if not _named(address, opened) and is_here(address) else ""
            )
            if kind:
                raise address_denied(place.host, kind)
        return found

    async def _look_up(self, place: Place, session: str) -> list[Address]:
        while self._running[session] >= LOOKUPS_OF_SESSION or self._running.total() >= LOOKUPS:
            self._changed.clear()
            await self._changed.wait()
        try:
            texts = await self._on_thread(place, session)
        except (OSError, UnicodeError, RuntimeError) as error:  # the last one: there can be no more threads
            reason = getattr(error, "strerror", None) or error
            message = f"{place.host} was not found: {reason}"
            raise CapabilityFailed("http_failed", message, retryable=True) from error
        found = list(dict.fromkeys(_read(text) for text in texts))
        if not 0 < len(found) <= ADDRESSES:
            raise CapabilityFailed("http_failed", f"{place.host} has {len(found)} addresses; allowed: 1 to {ADDRESSES}")
        return found

    async def _on_thread(self, place: Place, session: str) -> list[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def tell(texts: list[str], error: Exception | None) -> None:
            self._running[session] -= 1
            self._running += Counter()  # forgets sessions that have none
            self._changed.set()
            if answer.done():
                return
            if error is None:
                answer.set_result(texts)
            else:
                answer.set_exception(error)

        def look() -> None:
            texts, problem = [], None
            try:
                texts = list(self._resolve(place.host, place.port))
            except Exception as error:  # noqa: BLE001 (it is raised where it was asked for)
                problem = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell, texts, problem)

        thread = threading.Thread(target=look, name="capsule-http-name", daemon=True)
        thread.start()
        self._running[session] += 1
        return await answer


def is_here(address: Address) -> bool:
    """Whether an address is one of this machine's own: it would be its own source. Nothing is sent to find out."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False  # no way leads there, so none does to this machine


def _read(text: str) -> Address:
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _named(address: Address, opened: tuple[Network, ...]) -> bool:
    return any(network.version == address.version and address in network for network in opened)

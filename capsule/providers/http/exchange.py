"""What happens in one call: the request, its redirects, the answer, and what is told of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from capsule.providers.http import hops
from capsule.providers.http.bodies import Taker, outgoing, relay
from capsule.providers.http.schemas import Fetched
from capsule.providers.http.transport import Bounds, Transport
from capsule_protocol.errors import CapabilityError, CapabilityFailed, CapabilityTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from capsule.broker.sdk import Call
    from capsule.providers.http.hops import Hop, Sent
    from capsule.providers.http.names import Names
    from capsule.providers.http.scope import Scope, Target
    from capsule.providers.http.trust import Trust

_VERSIONS = ("HTTP/1.0", "HTTP/1.1")
_REFUSED = frozenset({408, 425, 429, 503})
"""With these a server says that it has done nothing, and may later."""
_FAILED = frozenset({500, 502, 504})
"""With these nobody says what was done."""


class Exchange:
    """One call: a request and its redirects. Its errors have no secret in them."""

    def __init__(self, call: Call, names: Names, trust: Trust, secret: Callable[[str], str]) -> None:
        self._call = call
        self._scope: Scope = call.scope
        self._names = names
        self._trust = trust
        self._secret = secret
        self._started = time.monotonic()
        self._passed: list[str] = []

    async def run(self) -> Fetched:
        """Follow redirects to the answer. Raises CapabilityError."""
        hop = hops.first(self._call.request)
        hops.allowed(hop, self._scope)
        content = await outgoing(self._call.body, _least(self._scope.request_bytes, self._call.limits.request_bytes))
        while True:
            with _without_secrets(hop), _made_once(hop):
                target = hops.allowed(hop, self._scope)
                hop, sent = hops.prepared(hop, target, self._secret)
            with _without_secrets(hop), _made_once(hop):
                async with self._answer(hop, sent, target, content) as response:
                    location = _location(response)
                    if location is None or not self._call.request.follow_redirects:
                        return await self._told(hop, response)
                    hop, content = self._next(hop, response.status_code, location, content)

    def _next(self, hop: Hop, status: int, location: str, content: Any) -> tuple[Hop, Any]:
        if len(self._passed) >= self._scope.redirects:
            raise CapabilityFailed("http_failed", f"there are more than {self._scope.redirects} redirects")
        self._passed.append(hop.mask.text(str(hop.place)))
        after = hops.following(hop, status, location)
        if after.method != hop.method:
            content = b""
        if not isinstance(content, bytes):
            raise CapabilityFailed("http_failed", "a redirect asks for the body again, which is too large to be kept")
        return after, content

    @asynccontextmanager
    async def _answer(self, hop: Hop, sent: Sent, target: Target, content: Any) -> AsyncIterator[httpx.Response]:
        scope = self._scope
        bounds = Bounds(scope.connect_time, scope.read_time, scope.header_bytes)
        with _explained(hop, scope):
            async with asyncio.timeout(scope.connect_time):
                addresses = await self._names.addresses(hop.place, scope.private, self._call.asker.session)
            context = await self._trust.context(scope.ca_file) if target.scheme == "https" else None
            transport = Transport(addresses, bounds, context)
            try:
                response = await transport.handle_async_request(_request(hop, sent, content))
                if response.http_version not in _VERSIONS:
                    raise CapabilityFailed("http_failed", f"{hop.place.plain}: the answer is {response.http_version}")
                yield response
            finally:
                await transport.aclose()

    async def _told(self, hop: Hop, response: httpx.Response) -> Fetched:
        status, reason = response.status_code, response.reason_phrase
        if self._call.request.raise_for_status and not 200 <= status < 300:
            message = f"{hop.place.plain} answered {status} {reason}".rstrip()
            retryable = status in _REFUSED or (status in _FAILED and hop.harmless)
            raise CapabilityFailed("http_failed", message, retryable=retryable, details={"status": status})
        taker = Taker(self._call.send, gather=self._call.operation == "fetch")
        most = _least(self._scope.response_bytes, self._call.limits.response_bytes)
        relayed = await relay(response, hop.mask, most, taker)
        headers, cookies = _headers(response, hop)
        return Fetched(
            status=status,
            reason=hop.mask.text(reason),
            url=hop.mask.text(str(hop.place)),
            http_version=response.http_version,
            headers=headers,
            set_cookie=cookies,
            redirects=tuple(self._passed),
            size=relayed.size,
            transferred=relayed.size if hop.mask.active else relayed.transferred,
            elapsed=time.monotonic() - self._started,
        )


def _request(hop: Hop, sent: Sent, content: Any) -> httpx.Request:
    request = httpx.Request(hop.method, str(sent.place), headers=sent.headers, content=content or None)
    # httpx reads the URL again: what it has read must be what was checked.
    if request.headers["host"] != sent.place.authority or request.url.raw_path != sent.place.target.encode():
        raise CapabilityFailed("capability_invalid", f"{hop.place.plain} can be read in more than one way")
    return request


def _location(response: httpx.Response) -> str | None:
    if response.status_code not in hops.REDIRECTS:
        return None
    values = [value for name, value in response.headers.raw if name.lower() == b"location"]
    return values[0].decode("utf-8", "replace") if values else None


def _headers(response: httpx.Response, hop: Hop) -> tuple[dict[str, str], tuple[str, ...]]:
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in response.headers.raw:
        name, value = (hop.mask.text(raw.decode("latin-1")) for raw in (raw_name, raw_value))
        name = name.lower()
        if name == "set-cookie":
            cookies.append(value)
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers, tuple(cookies)


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


@contextmanager
def _explained(hop: Hop, scope: Scope) -> Iterator[None]:
    where = hop.place.plain
    try:
        yield
    except CapabilityError:
        raise
    except (httpcore.ConnectTimeout, TimeoutError) as error:
        message = f"{where}: no connection within {scope.connect_time:g} s"
        raise CapabilityTimeout("capability_timeout", message, retryable=True) from error
    except httpcore.TimeoutException as error:
        message = f"{where}: nothing was sent or taken for {scope.read_time:g} s"
        raise CapabilityTimeout("capability_timeout", message, retryable=hop.harmless) from error
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        httpx.InvalidURL,
        OSError,
    ) as error:
        retryable = hop.harmless or isinstance(error, httpcore.ConnectError)
        message = f"{where}: {str(error) or 'the connection was lost'}"
        raise CapabilityFailed("http_failed", message, retryable=retryable) from error


@contextmanager
def _made_once(hop: Hop) -> Iterator[None]:
    """Who calls again makes the requests before a redirect again too: not if one of them may have changed something."""
    try:
        yield
    except CapabilityError as error:
        error.retryable = error.retryable and not hop.effects
        raise


@contextmanager
def _without_secrets(hop: Hop) -> Iterator[None]:
    """Errors may quote what was sent or what came, and so may their causes."""
    try:
        yield
    except CapabilityError as error:
        if not hop.mask.active:
            raise
        text = hop.mask.text
        details = {name: text(value) if isinstance(value, str) else value for name, value in error.details.items()}
        plain = type(error)(
            error.code, text(error.message), hint=error.hint, retryable=error.retryable, details=details
        )
    else:
        return
    raise plain from None

"""What stands in the node for a provider that runs in a process of its own."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from capsule.broker.apart.link import Link
from capsule.broker.apart.process import GRACE, START_SECONDS, Process, refused
from capsule.broker.apart.schemas import heard, read
from capsule.broker.sdk import Health, Schema
from capsule_protocol.errors import ArgumentError, CapabilityError, CapabilityFailed

if TYPE_CHECKING:
    from capsule.broker.apart.link import Exchange
    from capsule.broker.sdk import Call, Descriptor, Services

ADMIT_SECONDS = 30.0
"""In which its process has to say whether it admits a call, which needs no I/O: the time-out that calls have."""


class ApartProvider:
    """A `Provider`. Its process is started when it is made; if it dies, the next call starts another one."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._link: Link | None = None
        self._connecting: asyncio.Future[Link] | None = None
        self._stopped = False
        self._process: Process | None = Process(origin)  # with which nobody has talked yet
        self._described = self._process.described
        try:
            self._descriptor = heard(self._described)
        except Exception as error:
            self.kill()
            raise refused(origin, f"describes itself in a way that is not understood: {error}"[:500]) from error

    @property
    def descriptor(self) -> Descriptor:
        """As its process has told it."""
        return self._descriptor

    async def start(self, services: Services) -> None:  # noqa: ARG002  # it gets none of them
        """Begin to talk to it."""
        await self._connect()

    async def health(self) -> Health:
        """What it says, or that its process is gone."""
        try:
            answer = await self._ask("health", {}, START_SECONDS)
        except CapabilityError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=answer.get("ok") is True, detail=str(answer.get("detail", "")))

    async def stop(self) -> None:
        """End its process. Idempotent."""
        self._stopped = True
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        link, self._link = self._link, None
        process, self._process = self._process, None
        if link is not None:
            await link.shut()
        if process is not None:
            await asyncio.to_thread(process.end)

    def kill(self) -> None:
        """End its process now, though nobody talks to it yet."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.end()

    async def check(self, scope: Any) -> None:
        """Have it look at the scope of a grant. Raises ArgumentError."""
        try:
            await self._ask("check", {"scope": scope.model_dump(mode="json")}, START_SECONDS)
        except CapabilityError as error:
            raise ArgumentError("scope", error.message, allowed="what the provider can serve") from error

    async def admit(self, operation: str, request: Any, scope: Any) -> None:
        """Have it look whether the request is valid, and within the scope.

        Raises CapabilityFailed `capability_invalid`, CapabilityDenied, and whatever else it says.
        """
        await self._ask("admit", _asked(operation, request, scope), ADMIT_SECONDS)

    async def call(self, call: Call) -> Schema:
        """Have it done there.

        If its process ends meanwhile: CapabilityFailed `capability_uncertain`, or `provider_unavailable` if the
        operation has no effects.
        """
        operation = self._descriptor.operations[call.operation]
        link = await self._connect()
        exchange = link.open("call", _told(call), f"{call.operation} of {self._origin}" if operation.effects else "")
        bringing = asyncio.ensure_future(_bring(link, exchange, call))
        bringing.add_done_callback(exchange.brought)
        try:
            value = await _take(exchange, call)
        finally:
            bringing.cancel()
            await asyncio.wait([bringing])
            await _give_up(link, exchange)
        try:
            return read(operation.response, value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]
            message = f"{self._origin} answered with something else than it describes: {what}"
            raise CapabilityFailed("capability_failed", message) from None

    # --- inside ---

    async def _ask(self, kind: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        link = await self._connect()
        return await link.ask(kind, body, seconds)

    async def _connect(self) -> Link:
        """The link to its process; to a new one if the last has died. Raises CapabilityError.

        Whoever waits may be cancelled: it goes on, or a process would be left that nobody knows of.
        """
        if self._connecting is None or self._connecting.done():
            if self._stopped:
                raise CapabilityFailed("provider_unavailable", f"{self._origin} was stopped")
            if self._link is not None and self._link.alive:
                return self._link
            self._connecting = asyncio.ensure_future(self._begin())
            self._connecting.add_done_callback(_look)
        return await asyncio.shield(self._connecting)

    async def _begin(self) -> Link:
        last, self._link = self._link, None
        if last is not None:
            await last.shut()
        process, self._process = self._process, None
        if process is None:
            process = await asyncio.to_thread(self._again)
        link = Link(process, self._origin)
        try:
            await link.ask("start", {}, START_SECONDS)
        except BaseException:  # one that was not started is asked nothing
            await link.shut()
            raise
        self._link = link
        return link

    def _again(self) -> Process:
        """Another process of the same provider."""
        try:
            process = Process(self._origin)
        except ArgumentError as error:
            raise CapabilityFailed("provider_unavailable", error.message) from error
        if process.described != self._described:
            process.end()
            raise CapabilityFailed("provider_unavailable", f"{self._origin} is another version now")
        return process


def _told(call: Call) -> dict[str, Any]:
    asked = _asked(call.operation, call.request, call.scope)
    return {**asked, "asker": asdict(call.asker), "key": call.key, "limits": asdict(call.limits)}


def _asked(operation: str, request: Any, scope: Any) -> dict[str, Any]:
    return {
        "operation": operation,
        "request": request.model_dump_json(exclude_unset=True),
        "scope": scope.model_dump(mode="json"),
    }


async def _take(exchange: Exchange, call: Call) -> dict[str, Any]:
    """Pass on the answer's body until there is the answer, or the request's body could not be brought."""
    async for piece in exchange.body:
        await call.send(piece)
    if exchange.error is not None:
        raise exchange.error
    value = await exchange.answer
    for rest in exchange.rest:
        await call.send(rest)
    return value


async def _bring(link: Link, exchange: Exchange, call: Call) -> None:
    """Pass on the request's body, as it is asked for."""
    async for piece in call.body:
        rest = memoryview(piece)
        while rest:
            while exchange.wanted <= 0:
                exchange.more.clear()
                await exchange.more.wait()
            part, rest = rest[: exchange.wanted], rest[exchange.wanted :]
            exchange.wanted -= len(part)
            link.send("data", exchange.number, {}, (part,))
    link.send("end", exchange.number, {})


async def _give_up(link: Link, exchange: Exchange) -> None:
    """If it is not over: have it ended, by force if need be."""
    try:
        if not exchange.answer.done():
            link.send("cancel", exchange.number, {})
            _, late = await asyncio.wait([exchange.answer], timeout=GRACE)
            if late:
                link.end("does not end a call that was given up")
    finally:
        link.close(exchange)


def _look(connecting: asyncio.Future[Link]) -> None:
    """Those who waited were told of its failure; if nobody did, the next one tries again."""
    if not connecting.cancelled():
        connecting.exception()

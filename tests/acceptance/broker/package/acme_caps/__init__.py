"""A provider that is not Capsule's own, as a package would bring it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from capsule.broker.sdk import Call, Descriptor, Empty, Health, Limits, Operation, Schema, ScopeSchema, Services, secret
from capsule_protocol.errors import ArgumentError, CapabilityDenied, CapabilityFailed


class Scope(ScopeSchema):
    """Where marks are left, and for whom greetings may be."""

    names: tuple[str, ...] = ("*",)
    marks: Path | None = None


class Greeting(Schema):
    """Whom to greet."""

    name: str
    loud: bool = False


class Words(Schema):
    """What to put together."""

    words: tuple[str, ...]


class Greeted(Schema):
    """How."""

    value: str


class Login(Schema):
    """Who somebody is."""

    user: str
    password: str = secret()


class Mark(Schema):
    """What to write, with passwords that nobody needs."""

    text: str
    password: str = secret("")
    seconds: float = 0.0
    logins: tuple[Login, ...] = ()


class Marked(Schema):
    """How many lines there are now."""

    lines: int


class Size(Schema):
    """How many bytes."""

    size: int
    piece: int = 2**16


class Counted(Schema):
    """How many bytes came, and what they add up to."""

    size: int
    total: int


class Trouble(Schema):
    """Which kind."""

    kind: str


class Acme:
    """The provider."""

    descriptor = Descriptor(
        name="acme",
        version="1.0",
        scope=Scope,
        operations={
            "greet": Operation("Greet somebody", Greeting, Greeted, effects=False),
            "join": Operation("Put words together", Words, Greeted, effects=False),
            "mark": Operation("Leave a mark", Mark, Marked, limits=Limits(timeout=5.0)),
            "give": Operation("Give bytes", Size, Empty, effects=False, gives_body=True),
            "count": Operation("Count bytes", Empty, Counted, effects=False, takes_body=True),
            "echo": Operation("Give back what came", Empty, Empty, effects=False, takes_body=True, gives_body=True),
            "wait": Operation("Wait for ever", Empty, Empty, effects=False, limits=Limits(timeout=0.2)),
            "trouble": Operation("Fail", Trouble, Empty, effects=False),
        },
    )

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.started = False
        self._changed = asyncio.Event()

    async def reached(self, running: int) -> None:
        """Wait until so many calls run."""
        async with asyncio.timeout(60):
            while self.running != running:
                self._changed.clear()
                await self._changed.wait()

    async def start(self, services: Services) -> None:  # noqa: ARG002 (the interface)
        self.started = True

    async def health(self) -> Health:
        return Health(self.started)

    async def stop(self) -> None:
        self.started = False

    def check(self, scope: Scope) -> Awaitable[None] | None:
        if scope.names == ("never checked",):
            return never()
        if scope.marks is not None and not scope.marks.parent.is_dir():
            raise ArgumentError("scope.marks", f"{scope.marks.parent} is missing", allowed="a file in a directory")
        return None

    def admit(self, operation: str, request: Any, scope: Scope) -> Awaitable[None] | None:
        if scope.names == ("never admitted",):
            return never()
        if scope.names == ("never known",):
            raise CapabilityFailed("capability_failed", "nobody knows now")
        if operation == "greet" and "*" not in scope.names and request.name not in scope.names:
            message = f"{request.name} may not be greeted; allowed: {', '.join(scope.names)}"
            raise CapabilityDenied("capability_outside_grant", message)
        return None

    async def call(self, call: Call) -> Schema:
        self.running += 1
        self._changed.set()
        self.most = max(self.most, self.running)
        try:
            answer: Schema = await getattr(self, f"_{call.operation}")(call)
            return answer
        finally:
            self.running -= 1
            self._changed.set()

    async def _greet(self, call: Call) -> Greeted:
        text = f"hello {call.request.name}"
        return Greeted(value=text.upper() if call.request.loud else text)

    async def _join(self, call: Call) -> Greeted:
        return Greeted(value=" ".join(call.request.words))

    async def _mark(self, call: Call) -> Marked:
        with call.scope.marks.open("a", encoding="utf-8") as file:
            file.write(call.request.text + "\n")
        await asyncio.sleep(call.request.seconds)
        return Marked(lines=len(call.scope.marks.read_text(encoding="utf-8").splitlines()))

    async def _give(self, call: Call) -> Empty:
        left = call.request.size
        while left:
            piece = min(left, call.request.piece)
            await call.send(bytes(piece))
            left -= piece
        return Empty()

    async def _count(self, call: Call) -> Counted:
        size = total = 0
        async for piece in call.body:
            size += len(piece)
            total += sum(piece)
        return Counted(size=size, total=total)

    async def _echo(self, call: Call) -> Empty:
        async for piece in call.body:
            await call.send(piece)
        return Empty()

    async def _wait(self, call: Call) -> Empty:  # noqa: ARG002 (the interface)
        await asyncio.get_running_loop().create_future()
        return Empty()

    async def _trouble(self, call: Call) -> Empty:
        if call.request.kind == "none":
            return Empty()
        if call.request.kind == "bug":
            raise ZeroDivisionError("a mistake that has a secret: hunter2")
        try:
            Path("/does/not/exist").read_bytes()
        except OSError as error:
            raise CapabilityFailed("capability_failed", "it did not work out") from error
        return Empty()


async def never() -> None:
    """What asks somebody who does not answer."""
    await asyncio.get_running_loop().create_future()


def provider() -> Acme:
    """What the entry point names."""
    return Acme()

"""A provider that does not keep to the rules. A test copies it into its folder, where files say what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import os
from functools import reduce
from pathlib import Path
from typing import Any

from msgpack import packb

import __main__
from capsule.broker.apart.messages import pack
from capsule.broker.sdk import Call, Descriptor, Empty, Health, Operation, Schema, ScopeSchema, Services
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed

HERE = Path(__file__).parent


class Scope(ScopeSchema):
    """What may be asked for, and how it is looked at."""

    hows: tuple[str, ...] = ("*",)
    check: str = ""


class How(Schema):
    """How to behave, and how often."""

    how: str = ""
    n: int = 0


class Number(Schema):
    """Which process it is, or something else."""

    n: int


class Wild:
    """Answers with the number of its process, if nothing else is asked for."""

    descriptor = Descriptor(
        name="wild",
        version="1.0",
        scope=Scope,
        untrusted=True,
        operations={
            "do": Operation("Do something", How, Number, effects=False),
            "pay": Operation("Change something", How, Number),
            "give": Operation("Give much", How, Empty, effects=False, gives_body=True),
        },
    )
    started = False

    async def start(self, services: Services) -> None:  # noqa: ARG002 (the interface)
        raise_as(told("start"))
        self.started = True

    async def health(self) -> Health:
        raise_as(told("health"))
        return Health(self.started)

    async def stop(self) -> None: ...

    def check(self, scope: Scope) -> None:
        raise_as(scope.check)

    def admit(self, operation: str, request: How, scope: Scope) -> None:
        with (HERE / "admitted").open("a") as file:
            file.write(f"{operation}\n")
        if request.how == "admit badly":
            raise ZeroDivisionError("admit")
        if request.how == "admit never":
            while True:
                pass
        if request.how == "admit and die":
            os._exit(3)
        if "*" not in scope.hows and request.how not in scope.hows:
            raise CapabilityDenied("capability_outside_grant", f"{request.how} is none of {', '.join(scope.hows)}")

    async def call(self, call: Call) -> Any:
        if not self.started:
            raise CapabilityFailed("never_started", "it was not started")
        how = call.request.how
        if how == "wait":
            (HERE / "waiting").touch()
            await asyncio.get_running_loop().create_future()
        elif how == "die":
            os._exit(3)
        elif how == "nothing":
            return None
        elif how == "huge":
            return Number.model_construct(n=[0] * 2**20)  # type: ignore[arg-type]  # which it must not
        elif how == "otherwise":
            return Number.model_construct(n="x")  # type: ignore[arg-type]  # which it must not
        elif how == "flood":
            await flood()
        elif how:
            say(BREACHES[how])
        return Empty() if call.operation == "give" else Number(n=os.getpid())


def told(name: str) -> str:
    file = HERE / name
    return file.read_text() if file.exists() else ""


def raise_as(text: str) -> None:
    if text == "failed":
        raise CapabilityFailed("wild_down", "it is down")
    if text:
        raise RuntimeError(text)


def host() -> Any:
    return next(each for each in gc.get_objects() if isinstance(each, __main__.Host))


def say(frames: list[Any]) -> None:
    if frames == [b"raw"]:
        os.write(host()._stream._socket.fileno(), b"\xff" * 1000)
    else:
        number = max(host()._calls)
        host()._stream.send([each(number) if callable(each) else each for each in frames])


def message(kind: str, body: Any, *buffers: bytes) -> list[Any]:
    """Frames; one that is a function gets the number of the call."""
    return [lambda number: pack(kind, number, {})[0], packb(body), *buffers]


async def flood() -> None:
    for _ in range(400):
        say(message("data", {}, bytes(2**20)))
        await host()._stream.flushed()


NOTHING: dict[str, Any] = {}
BREACHES: dict[str, list[Any]] = {
    "nothing in it": [],
    "no envelope": [packb([1, 2]), packb({})],
    "garbage": [b"\xc1\xc1", b"\xc1"],
    "raw": [b"raw"],
    "no such kind": message("told", {}),
    "a list": message("reply", [1]),
    "no value": message("reply", {}),
    "value of another kind": message("reply", {"value": 5}),
    "error of another kind": message("error", {"outcome": "failed", "error": 5}),
    "another outcome": message("error", {"outcome": "accepted", "error": {"code": "a", "message": "b"}}),
    "wants text": message("want", {"size": "x"}),
    "wants less": message("want", {"size": -1}),
    "wants too much": message("want", {"size": 2**40}),
    "gives too much": message("data", {}, bytes(5 * 2**20)),
    "gives too much with it": message("reply", {"value": {"n": 1}}, bytes(2**20)),
    "nested too deep": message("reply", {"value": reduce(lambda inner, _: {"a": inner}, range(99), NOTHING)}),
    "too many": message("reply", {"value": {"n": [0] * 2**20}}),
}


def provider() -> Wild:
    return Wild()

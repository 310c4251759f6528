"""The process of one provider: `python -P -m capsule.broker.apart.host --fd N MODULE:FACTORY`.

It ends when its socket does. What it is asked and what it answers are envelopes, as `messages` has them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from capsule.broker.apart.messages import pack
from capsule.broker.apart.schemas import told
from capsule.broker.bodies import Inlet, Outlet
from capsule.broker.sdk import Asker, Call, Limits, Services, answered
from capsule.node.asking import Answer
from capsule.node.tasks import Tasks
from capsule.stream import Stream
from capsule_protocol.codec import decode
from capsule_protocol.errors import CapabilityError, CapabilityFailed, CapsuleError, LocalProtocolError
from capsule_protocol.framing import pack as framed
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from capsule.broker.sdk import Chunk, Provider, Schema
    from capsule_protocol.envelope import Buffer, Envelope
    from capsule_protocol.errors import RemoteProtocolError

logger = logging.getLogger("capsule.broker")  # without a handler here, so what it tells goes to stderr

MAX_TEXT = 1000
"""Characters of what a provider says of a mistake of its own."""


class Host:
    """Serves the node until it has gone."""

    def __init__(self, provider: Provider, sock: socket.socket) -> None:
        self._provider = provider
        self._tasks = Tasks()
        self._calls: dict[int, tuple[Inlet, Outlet, asyncio.Task[None]]] = {}
        self._stream = Stream(asyncio.get_running_loop(), sock, DEFAULT_LIMITS, self._hear, self._broken)

    async def serve(self) -> None:
        """Until the node has gone."""
        self._stream.start()
        await self._stream.disconnected
        await self._tasks.close()
        await self._provider.stop()
        self._stream.close()

    def _broken(self, error: RemoteProtocolError) -> NoReturn:
        raise error

    def _hear(self, frames: list[bytes]) -> None:
        envelope = decode(frames)
        if envelope.type == "call":
            self._begin(envelope)
        elif envelope.type in {"data", "end", "credit", "cancel"}:
            self._about(envelope)
        else:
            self._tasks.start(self._answer(envelope))

    def _about(self, envelope: Envelope) -> None:
        found = self._calls.get(envelope.sequence)
        if found is None:  # it is over, which the node did not know
            return
        inlet, outlet, task = found
        if envelope.type == "data":
            inlet.feed(envelope.buffers)
        elif envelope.type == "end":
            inlet.end()
        elif envelope.type == "credit":
            outlet.credit(envelope.body["size"])
        else:  # behind its first step, or it would never say how it ended
            asyncio.get_running_loop().call_soon(task.cancel)

    async def _answer(self, envelope: Envelope) -> None:
        number = envelope.sequence
        try:
            self._send("reply", number, {"value": await self._answered(envelope.type, envelope.body)})
        except (CapsuleError, ValidationError) as error:
            self._refuse(number, error)
        except Exception as error:
            logger.exception("%s of %s", envelope.type, self._provider.descriptor.name)
            self._refuse(number, CapabilityFailed("capability_failed", f"{type(error).__name__}: {error}"))

    async def _answered(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        provider = self._provider
        if kind == "start":
            await provider.start(Services(_no_secret, _nobody))
        elif kind == "check":
            await answered(provider.check(provider.descriptor.scope.model_validate(body["scope"])))
        elif kind == "admit":
            await self._admitted(body)
        elif kind == "health":
            health = await provider.health()
            return {"ok": health.ok, "detail": health.detail}
        return {}

    def _begin(self, envelope: Envelope) -> None:
        number = envelope.sequence
        inlet = Inlet((), more=True, give_credit=lambda size: self._send("want", number, {"size": size}))
        outlet = Outlet(0, lambda pieces: self._send("data", number, {}, pieces))
        task = self._tasks.start(self._make(number, envelope.body, inlet, outlet))
        self._calls[number] = (inlet, outlet, task)

    async def _make(self, number: int, body: dict[str, Any], inlet: Inlet, outlet: Outlet) -> None:
        try:
            name, request, scope = await self._admitted(body)
            asker, limits = Asker(**body["asker"]), Limits(**body["limits"])
            call = Call(name, request, scope, asker, body["key"], limits, aiter(inlet), outlet.send)
            response = await self._provider.call(call)
            if not isinstance(response, self._provider.descriptor.operations[name].response):
                raise TypeError(f"{name} answered with {type(response).__name__}")  # noqa: TRY301  # as any other mistake
            self._send("reply", number, {"value": response.model_dump(mode="json")}, outlet.rest())
        except asyncio.CancelledError:
            self._refuse(number, CapabilityFailed("capability_canceled", "the call was given up"))
        except (CapsuleError, ValidationError) as error:
            self._refuse(number, error)
        except Exception as error:
            logger.exception("%s of %s", body["operation"], self._provider.descriptor.name)
            self._refuse(number, CapabilityFailed("capability_failed", f"the provider raised {type(error).__name__}"))
        finally:
            del self._calls[number]

    async def _admitted(self, body: dict[str, Any]) -> tuple[str, Schema, Any]:
        """The operation, its request and the scope, if the request is within that."""
        descriptor, name = self._provider.descriptor, body["operation"]
        request = descriptor.operations[name].request.model_validate_json(body["request"])
        scope = descriptor.scope.model_validate(body["scope"])
        await answered(self._provider.admit(name, request, scope))
        return name, request, scope

    def _refuse(self, number: int, error: CapsuleError | ValidationError) -> None:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            error = CapabilityFailed("capability_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        elif isinstance(error, LocalProtocolError):
            error = CapabilityFailed("capability_too_large", f"the answer fits into no message: {error.message}")
        outcome = error.outcome if isinstance(error, CapabilityError) else "failed"
        told = error.as_dict() | {"message": error.message[:MAX_TEXT]}
        try:
            self._send("error", number, {"outcome": outcome, "error": told})
        except LocalProtocolError:  # for what is in its details
            self._send("error", number, {"outcome": outcome, "error": told | {"details": {}}})

    def _send(self, kind: str, number: int, body: dict[str, Any], buffers: tuple[Chunk, ...] = ()) -> None:
        self._stream.send(pack(kind, number, body, buffers))


def _no_secret(name: str) -> str:
    raise CapabilityFailed(
        "secret_unknown", f"a provider in a process of its own gets no secret, so not {name[:100]!r}"
    )


async def _nobody(*_: object) -> Answer:
    return Answer(None, "eof")


async def _serve(provider: Provider, sock: socket.socket) -> None:
    await Host(provider, sock).serve()


def _framed(frames: list[Buffer]) -> bytes:
    return b"".join(framed(frames))


def main() -> None:
    """Make the provider, say what it is, and serve."""
    sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    module, _, factory = sys.argv[-1].partition(":")
    try:
        provider: Provider = getattr(importlib.import_module(module), factory)()
        described = pack("provider", 0, told(provider.descriptor))
    except BaseException as error:  # noqa: BLE001  # whatever it is, the node is told
        sock.sendall(_framed(pack("error", 0, {"error": f"{type(error).__name__}: {error}"[:MAX_TEXT]})))
        os._exit(1)
    sock.sendall(_framed(described))
    asyncio.run(_serve(provider, sock))


if __name__ == "__main__":
    main()

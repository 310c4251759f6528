"""The process of one provider: `python -P -m capsule.broker.apart.host --fd N MODULE:FACTORY`.

It ends when its socket does. What it is asked and what it answers are messages of msgpack with buffers, in the framing
of the protocol; `op` says what each is.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from msgpack import packb, unpackb
from pydantic import ValidationError

from capsule.broker.apart.schemas import told
from capsule.broker.bodies import Inlet, Outlet
from capsule.broker.sdk import Asker, Call, Limits, Services
from capsule.node.asking import Answer
from capsule.node.tasks import Tasks
from capsule.stream import Stream
from capsule_protocol.errors import CapabilityError, CapabilityFailed, CapsuleError
from capsule_protocol.framing import pack
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from capsule.broker.sdk import Chunk, Provider
    from capsule_protocol.envelope import Buffer
    from capsule_protocol.errors import RemoteProtocolError


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
        message: dict[str, Any] = unpackb(frames[0])
        op, number = message["op"], message.get("id", 0)
        if op == "call":
            self._begin(message)
        elif op in {"data", "end", "credit", "cancel"}:
            self._about(op, number, message, frames[1:])
        else:
            self._tasks.start(self._answer(op, number, message))

    def _about(self, op: str, number: int, message: dict[str, Any], buffers: list[bytes]) -> None:
        found = self._calls.get(number)
        if found is None:  # it is over, which the node did not know
            return
        inlet, outlet, task = found
        if op == "data":
            inlet.feed(buffers)
        elif op == "end":
            inlet.end()
        elif op == "credit":
            outlet.credit(message["size"])
        else:  # behind its first step, or it would never say how it ended
            asyncio.get_running_loop().call_soon(task.cancel)

    async def _answer(self, op: str, number: int, message: dict[str, Any]) -> None:
        try:
            if op == "start":
                await self._provider.start(Services(_no_secret, _nobody))
            elif op == "stop":
                await self._provider.stop()
            elif op == "check":
                self._provider.check(self._provider.descriptor.scope.model_validate(message["scope"]))
            elif op == "health":
                health = await self._provider.health()
                self._send({"op": "reply", "id": number, "value": {"ok": health.ok, "detail": health.detail}})
                return
        except (CapsuleError, ValidationError) as error:
            self._refuse(number, error)
        else:
            self._send({"op": "reply", "id": number, "value": {}})

    def _begin(self, message: dict[str, Any]) -> None:
        number = message["id"]
        inlet = Inlet((), more=True, give_credit=lambda size: self._send({"op": "want", "id": number, "size": size}))
        outlet = Outlet(message["window"], lambda pieces: self._send({"op": "data", "id": number}, pieces))
        task = self._tasks.start(self._make(number, message, inlet, outlet))
        self._calls[number] = (inlet, outlet, task)

    async def _make(self, number: int, message: dict[str, Any], inlet: Inlet, outlet: Outlet) -> None:
        descriptor, name = self._provider.descriptor, message["operation"]
        try:
            request = descriptor.operations[name].request.model_validate_json(message["request"])
            scope = descriptor.scope.model_validate(message["scope"])
            self._provider.admit(name, request, scope)
            asker, limits = Asker(**message["asker"]), Limits(**message["limits"])
            call = Call(name, request, scope, asker, message["key"], limits, aiter(inlet), outlet.send)
            response = await self._provider.call(call)
        except asyncio.CancelledError:
            self._refuse(number, CapabilityFailed("capability_canceled", "the call was given up"))
        except (CapsuleError, ValidationError) as error:
            self._refuse(number, error)
        except Exception as error:  # noqa: BLE001  # it is told to the node, which cannot see it
            self._refuse(number, CapabilityFailed("capability_failed", f"the provider raised {type(error).__name__}"))
        else:
            value = response.model_dump(mode="json")
            self._send({"op": "reply", "id": number, "value": value}, outlet.rest())
        finally:
            del self._calls[number]

    def _refuse(self, number: int, error: CapsuleError | ValidationError) -> None:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            error = CapabilityFailed("capability_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        outcome = error.outcome if isinstance(error, CapabilityError) else "failed"
        self._send({"op": "error", "id": number, "outcome": outcome, "error": error.as_dict()})

    def _send(self, message: dict[str, Any], buffers: tuple[Chunk, ...] = ()) -> None:
        frames: list[Buffer] = [packb(message), *buffers]
        self._stream.send(frames)


def _no_secret(name: str) -> str:
    raise CapabilityFailed(
        "secret_unknown", f"a provider in a process of its own gets no secret, so not {name[:100]!r}"
    )


async def _nobody(*_: object) -> Answer:
    return Answer(None, "eof")


async def _serve(provider: Provider, sock: socket.socket) -> None:
    await Host(provider, sock).serve()


def main() -> None:
    """Make the provider, say what it is, and serve."""
    sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    module, _, factory = sys.argv[-1].partition(":")
    try:
        provider: Provider = getattr(importlib.import_module(module), factory)()
        described = told(provider.descriptor)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the node is told
        described = {"error": f"{type(error).__name__}: {error}"[:1000]}
        sock.sendall(b"".join(pack([packb(described)])))
        os._exit(1)
    sock.sendall(b"".join(pack([packb(described)])))
    asyncio.run(_serve(provider, sock))


if __name__ == "__main__":
    main()

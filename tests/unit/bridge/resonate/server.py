"""Resonate's own server in memory, over HTTP, with a clock that can be set. Runs in an environment of its own.

Prints its port. `POST /` is the protocol, `POST /clock` sets the time, `POST /forget` loses all promises.
"""

from __future__ import annotations

import asyncio
import json

from aiohttp import web
from resonate.connections import LocalConnection
from resonate.error import ServerError

LARGEST = 2**30


class Server:
    """The server and its clock, which stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0
        self.forget()

    def forget(self) -> None:
        self.connection = LocalConnection(clock=lambda: self.now)

    async def call(self, request: web.Request) -> web.Response:
        body = await request.text()
        try:
            answer = await self.connection.send(body)
        except ServerError as error:
            asked = json.loads(body)
            head = {"corrId": asked["head"]["corrId"], "status": error.code, "version": "2026-04-01"}
            answer = json.dumps({"kind": asked["kind"], "head": head, "data": str(error)})
        return web.Response(text=answer, content_type="application/json")

    async def clock(self, request: web.Request) -> web.Response:
        self.now = int(await request.text())
        return web.Response()

    async def lose(self, _request: web.Request) -> web.Response:
        self.forget()
        return web.Response()


async def main() -> None:
    server = Server()
    app = web.Application(client_max_size=LARGEST)
    app.add_routes(
        [web.post("/", server.call), web.post("/clock", server.clock), web.post("/forget", server.lose)],
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

"""Kernels through a real jupyter_server, as its pages ask for them: by HTTP, then messages over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from capsule_bench.execute_ipykernel import PATIENCE
from capsule_bench.figures import milliseconds
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from traitlets.config import Config

_SERVE = """
import json, sys
from jupyter_server.serverapp import ServerApp

app = ServerApp.instance(ip="127.0.0.1", port=0, open_browser=False, log_level="ERROR", jpserver_extensions={})
app.initialize(sys.argv[1:], find_extensions=False)
told = [f"{app.ip}:{app.port}", app.identity_provider.token]
app.io_loop.add_callback(lambda: print(json.dumps(told), flush=True))  # behind the one that has it listen
app.start()
"""


def starts(config: Config, load: Load) -> Measured:
    """Milliseconds from asking for a kernel until it is idle for the first time; each is ended before the next."""
    with _server(config) as (host, token):
        return asyncio.run(_starts(host, token, load))


async def _starts(host: str, token: str, load: Load) -> Measured:
    values = []
    for _ in range(load.warmup + load.samples):
        begin = time.perf_counter()
        kernel = json.loads(await _ask(host, token, "POST", "kernels", json.dumps({"name": "python3"})))["id"]
        await _first_idle(f"ws://{host}/api/kernels/{kernel}/channels?token={token}")
        values.append(milliseconds(time.perf_counter() - begin))
        used = memory()
        await _ask(host, token, "DELETE", f"kernels/{kernel}", None)
    return Measured(values[load.warmup :], used)


async def _ask(host: str, token: str, method: str, path: str, body: str | None) -> bytes:
    request = HTTPRequest(
        f"http://{host}/api/{path}",
        method,
        headers={"Authorization": f"token {token}"},
        body=body,
        request_timeout=PATIENCE,
    )
    return bytes((await AsyncHTTPClient().fetch(request)).body)


async def _first_idle(address: str) -> None:
    """Ask what the kernel is, as front ends do first."""
    connected = await websocket_connect(address, connect_timeout=PATIENCE)
    await connected.write_message(json.dumps(_request()))
    async with asyncio.timeout(PATIENCE):
        while True:
            message = json.loads(await connected.read_message() or "{}")
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
    connected.close()


def _request() -> dict[str, Any]:
    header = {"msg_id": uuid4().hex, "msg_type": "kernel_info_request", "session": uuid4().hex, "version": "5.4"}
    empty: dict[str, Any] = {"parent_header": {}, "metadata": {}, "content": {}, "buffers": []}
    return {"channel": "shell", "header": header | {"username": "", "date": ""}, **empty}


@contextmanager
def _server(config: Config) -> Iterator[tuple[str, str]]:
    """A server of nothing but kernels: where it is, and the token for it."""
    options = [f"--{owner}.{name}={value}" for owner, traits in config.items() for name, value in traits.items()]
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        command = [sys.executable, "-P", "-c", _SERVE, "--allow-root", f"--ServerApp.root_dir={folder}", *options]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                host, token = json.loads(server.stdout.readline())
                yield host, token
            finally:
                server.terminate()

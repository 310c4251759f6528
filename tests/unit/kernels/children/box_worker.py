"""A worker for tests of zygote and box: runs the code in its spec, which tells what it finds by `report`."""

import json
import os
import socket
from typing import Any, NoReturn

import msgpack


def main(spec: dict[str, Any], lease: int, stdout: int, _stderr: int, page: int) -> NoReturn:
    def report(value: object) -> None:
        os.write(stdout, json.dumps(value).encode() + b"\n")

    with socket.socket(fileno=lease) as mine:
        mine.send(msgpack.packb({"bound": True}))
    exec(spec["code"], {"__name__": "code", "report": report, "spec": spec, "stdout": stdout, "page": page})
    os._exit(spec.get("code_at_end", 0))


def silent(_spec: dict[str, Any], _lease: int, _stdout: int, _stderr: int, _page: int) -> NoReturn:
    os._exit(5)


def failing(_spec: dict[str, Any], _lease: int, _stdout: int, stderr: int, _page: int) -> NoReturn:
    os.write(stderr, b"x" * 100_000 + b"\n")
    raise LookupError("no such sp\u00e4m")

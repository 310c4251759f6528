"""A node of its own process: takes a JSON object a line, runs the code in a fresh session, answers with one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from typing import Any

from capsule import AsyncClient
from capsule_protocol.errors import CapsuleError


async def answer(client: AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    """Run the cells one after another, or what the test has the node do; what the last one said."""
    if "source" in request:
        names: dict[str, Any] = {}
        exec(request["source"], names)
        try:
            return {"value": await names["main"](client)}
        except Exception:  # the test shows it
            return {"raised": traceback.format_exc()}
    options = request.get("options", {})
    for name in ("files",):
        if name in options:
            options[name] = {key: value.encode() for key, value in options[name].items()}
    try:
        async with client.session(**options) as session:
            info = await session.info()
            results = [await session.run(code, timeout=request.get("timeout")) for code in request["cells"]]
            last = results[-1]
            return {
                "stdout": last.stdout,
                "stderr": last.stderr,
                "verdict": last.verdict,
                "text": last.text,
                "error": None if last.error is None else f"{last.error.name}: {last.error.message}",
                "code": None if last.error is None else last.error.code,
                "info": {"sandbox": info.sandbox, "pid": info.pid, "memory": info.memory},
            }
    except CapsuleError as error:
        return {"refused": error.as_dict()}


async def main() -> None:
    """Serve stdin until it ends."""
    async with AsyncClient(environments={"default": json.loads(sys.argv[1])}) as client:
        sys.stdout.write(json.dumps({"pid": os.getpid(), "uid": os.getuid()}) + "\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            sys.stdout.write(json.dumps(await answer(client, json.loads(line))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())

from __future__ import annotations

import subprocess
import sys

WORKER_SIDE = "errors, limits, ids, envelope, codec, framing, states, sequence, negotiation, marks, page"


def test_the_worker_side_does_not_load_pydantic() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {WORKER_SIDE.split(', ')!r}: importlib.import_module('capsule_protocol.' + name)\n"
        "print([name for name in sys.modules if 'pydantic' in name or name in ('asyncio', 'zmq', 'socket')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout == "[]\n"

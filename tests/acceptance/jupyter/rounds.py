"""What must hold again and again: a few times in the suite, hundreds of times in the soak."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tests.acceptance.jupyter import support

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = """
import os, subprocess, sys, threading
print('printed')
os.write(1, b'written\\n')
subprocess.run(['echo', 'by a child'])
thread = threading.Thread(target=print, args=['by a thread'])
thread.start(); thread.join()
_ = sys.stderr.write('on stderr\\n')
"""
LINES = ["by a child", "by a thread", "on stderr", "printed", "written"]


def restart(manager: Any, client: Any, rounds: int) -> None:
    """Restart a kernel under an open connection: the new one answers what is asked for at once, without a wait."""
    for number in range(rounds):
        support.run(client, f"kept = {number}")
        manager.restart_kernel(now=number % 2 == 0)
        fresh = client.execute("'kept' in globals()", user_expressions={"kept": "'kept' in globals()"})
        counted = [client.execute(f"{number} + {more}") for more in range(3)]
        told = support.reply_to(client, fresh)
        assert told["user_expressions"]["kept"]["data"]["text/plain"] == "False"
        for place, request in enumerate(counted):
            content = support.reply_to(client, request)
            assert (content["status"], content["execution_count"]) == ("ok", place + 2)
        for request in (fresh, *counted):
            support.drain(client, request)


def write(client: Any, rounds: int) -> None:
    """Write in all ways while the machine is busy: all of it comes before idle, and nothing behind that."""
    over: set[str] = set()
    with _busy():
        for _ in range(rounds):
            request = client.execute(WAYS)
            told = []
            while True:
                message = client.get_iopub_msg(timeout=support.LONG)
                parent = message["parent_header"].get("msg_id")
                assert parent not in over, message
                if parent == request and message["content"].get("execution_state") == "idle":
                    break
                told.append(message)
            over.add(request)
            assert support.reply_to(client, request)["status"] == "ok"
            lines = (support.text_of(told) + support.text_of(told, "stderr")).splitlines()
            assert sorted(lines) == LINES


@contextmanager
def _busy() -> Iterator[None]:
    """More processes that compute than there are processors."""
    with ExitStack() as stack:
        for _ in range((os.cpu_count() or 1) + 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield

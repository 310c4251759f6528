"""A module that does not survive a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RESTLESS = """
import asyncio
import os
import queue
import signal
import threading

print("nobody is to see this")
asked, answers = queue.Queue(), queue.Queue()


def serve():
    while True:
        function, *arguments = asked.get()
        answers.put(function(*arguments))


poller = threading.Thread(target=serve, name="poller")
poller.start()
signal.signal(signal.SIGINT, signal.SIG_DFL)
asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())


def ask(*call):
    asked.put(call)
    return answers.get(timeout=60)
"""
"""Its thread does what it is asked for; it takes SIGINT for itself and chooses an event loop, as some do."""


def write_restless(folder: Path) -> None:
    """Put it into this folder, where everybody can read it."""
    folder.chmod(0o755)
    (folder / "restless.py").write_text(RESTLESS)

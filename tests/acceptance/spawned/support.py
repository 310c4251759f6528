"""A module that does not survive a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RESTLESS = """
import os
import queue
import signal
import threading

print("nobody is to see this")
asked, answers = queue.Queue(), queue.Queue()
birthplace = os.getpid(), os.getcwd()


def serve():
    while True:
        answers.put(asked.get() + 1)


poller = threading.Thread(target=serve, name="poller", daemon=True)
poller.start()
signal.signal(signal.SIGINT, signal.SIG_DFL)


def ask(number):
    asked.put(number)
    return answers.get(timeout=60)
"""
"""Its thread answers; and it takes SIGINT for itself, as some do."""


def write_restless(folder: Path) -> None:
    """Put it into this folder, where everybody can read it."""
    (folder / "restless.py").write_text(RESTLESS)

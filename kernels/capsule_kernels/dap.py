"""A connection to the adapter of debugpy, which speaks the Debug Adapter Protocol: one request after another."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from capsule_kernels import system

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = b"Content-Length:"
PATIENCE = 60.0
"""Seconds that debugpy may take to answer; what it evaluates is code."""
OWN_NUMBERS = 2**30
"""The numbers of requests that no client has made begin here."""


class AdapterLostError(ConnectionError):
    """The adapter has ended, or was told to."""


def untraced(name: str, target: Callable[[], object]) -> threading.Thread:
    """A thread that no breakpoint stops, and that gets no signal."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    exempt(thread)
    with system.signals_blocked():
        thread.start()
    return thread


def exempt(thread: threading.Thread) -> None:
    """Have debugpy neither trace the thread nor stop it."""
    for name in ("pydev_do_not_trace", "is_pydev_daemon_thread"):
        setattr(thread, name, True)


class Adapter:
    """Connected from the start on; all that comes goes to `on_message`, in its order, on a thread of its own."""

    def __init__(self, address: tuple[str, int], on_message: Callable[[dict[str, Any]], object]) -> None:
        self._socket = socket.create_connection(address)
        self._on_message = on_message
        self._responses: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._numbers = OWN_NUMBERS
        self._initialized = threading.Event()
        untraced("capsule-dap", self._read)

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the response. Raises AdapterLostError."""
        self._send(message)
        return self._response(message["seq"])

    def attach(self, message: dict[str, Any]) -> dict[str, Any]:
        """The request `attach`, whose response comes behind that to `configurationDone`."""
        self._send(message)
        if not self._initialized.wait(PATIENCE):
            raise AdapterLostError(f"debugpy was not ready within {PATIENCE:g} s")
        self._numbers += 1
        self._send({"type": "request", "seq": self._numbers, "command": "configurationDone"})
        return self._response(message["seq"])

    def close(self) -> None:
        """Hang up; whoever waits hears of it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        try:
            self._socket.sendall(b"%b %d\r\n\r\n%b" % (LENGTH, len(data), data))
        except OSError as error:
            raise AdapterLostError(f"debugpy's adapter has gone: {error}") from error

    def _response(self, number: int) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._responses.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AdapterLostError(f"debugpy has not answered within {PATIENCE:g} s") from None
            if response is None:
                self._responses.put(None)
                raise AdapterLostError("debugpy's adapter has gone")
            if response["request_seq"] == number:
                return response

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                while (message := _message(stream)) is not None:
                    self._on_message(message)
                    if message["type"] == "response":
                        self._responses.put(message)
                    elif message.get("event") == "initialized":
                        self._initialized.set()
        except (OSError, ValueError):  # it was closed
            pass
        finally:
            self._initialized.set()
            self._responses.put(None)


def _message(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message, None at the end."""
    size = 0
    while (line := stream.readline()) != b"\r\n":
        if not line:
            return None
        if line.startswith(LENGTH):
            size = int(line.removeprefix(LENGTH))
    message: dict[str, Any] = json.loads(stream.read(size))
    return message

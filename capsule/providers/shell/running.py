"""One run: its pipes, what goes in and comes out while it lasts, and how it ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from capsule.node.resources import enlarge
from capsule.providers.shell.scope import RunResponse
from capsule_protocol.errors import CapabilityFailed, CapabilityTimeout
from capsule_protocol.program_output import HEADER, STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from capsule.providers.shell.launcher import Launcher, Lease

_PIPE_BYTES = 2**18
_READ_BYTES = 2**17
FIELDS_BYTES = 512
"""Of an answer, beside the outputs: they count as those do."""
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Pipes:
    """The three pipes of a program: our ends do not block, its ends do. `close` is idempotent."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        try:
            self.stdin_read, self.stdin = self._pipe()
            self.stdout, self.stdout_write = self._pipe()
            self.stderr, self.stderr_write = self._pipe()
        except OSError as error:
            self.close()
            raise CapabilityFailed("provider_unavailable", f"no program can be started: {error.strerror}") from error
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(descriptor, False)

    def _pipe(self) -> tuple[int, int]:
        pair = os.pipe2(os.O_CLOEXEC)
        self._open.update(pair)
        enlarge(pair[0], _PIPE_BYTES)
        return pair

    def given(self) -> list[int]:
        """What goes along to the keeper: the program's ends, and our ends of its outputs."""
        return [self.stdin_read, self.stdout_write, self.stderr_write, self.stdout, self.stderr]

    def close_given(self) -> None:
        """Let go of the program's ends, so that ours see its end."""
        self.close(self.stdin_read, self.stdout_write, self.stderr_write)

    def close(self, *descriptors: int) -> None:
        """Close these, or all."""
        for descriptor in descriptors or tuple(self._open):
            if descriptor in self._open:
                self._open.discard(descriptor)
                os.close(descriptor)


class Caps(NamedTuple):
    """How much of one output is kept: bytes of the program's, and of frames with their headers."""

    content: int
    framed: int

    @classmethod
    def of(cls, output_bytes: int, response_bytes: int | None) -> Caps:
        """Within what the call may answer: more than that would fail instead of be cut."""
        return cls(output_bytes, sys.maxsize if response_bytes is None else max(0, response_bytes - FIELDS_BYTES) // 2)


class _Output:
    """One output of the program, as frames for the body."""

    def __init__(self, stream: int, descriptor: int, caps: Caps) -> None:
        self.stream = stream
        self.descriptor = descriptor
        self.seen = 0
        self.dropped = 0
        self._left = caps
        self._over = False
        self._waiting: anyio.CancelScope | None = None

    def end(self) -> None:
        """Nobody writes any more: what is there is all that comes."""
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def read(self) -> memoryview | None:
        """The next frame, None at the end or when there is more than may be kept (see `full`)."""
        while True:
            buffer = bytearray(HEADER.size + _READ_BYTES)
            try:
                size = os.readv(self.descriptor, [memoryview(buffer)[HEADER.size :]])
            except BlockingIOError:
                if self._over:
                    return None
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self.descriptor)
                continue
            kept = max(0, min(size, self._left.content, self._left.framed - HEADER.size))
            self._left = Caps(self._left.content - kept, self._left.framed - kept - HEADER.size)
            self.seen += kept
            self.dropped = size - kept
            if not kept:
                return None
            HEADER.pack_into(buffer, 0, self.stream, kept)
            return memoryview(buffer)[: HEADER.size + kept]

    @property
    def full(self) -> bool:
        """What comes now is only counted."""
        return self.dropped > 0


class Run:
    """A program from its start to its end. `go` returns or raises when nothing of it is left."""

    def __init__(self, body: AsyncIterator[bytes], send: Callable[[memoryview], Awaitable[None]], caps: Caps) -> None:
        self._body = body
        self._send = send
        self._sending = anyio.Lock()
        self._failure: BaseException | None = None
        self._pipes = Pipes()
        self._outputs = (
            _Output(STDOUT, self._pipes.stdout, caps),
            _Output(STDERR, self._pipes.stderr, caps),
        )

    async def go(
        self, launcher: Launcher, message: dict[str, Any], descriptors: list[int], timeout: float | None
    ) -> RunResponse:
        """Start it, carry what goes in and comes out, wait for its end."""
        begun = time.monotonic()
        try:
            lease = await launcher.launch(message, [*self._pipes.given(), *descriptors])
            self._pipes.close_given()
            try:
                with anyio.move_on_after(timeout) as patience:
                    await self._started(lease)
                    result = await self._carried(lease)
            finally:
                await lease.end()
        finally:
            self._pipes.close()
        if patience.cancelled_caught:
            raise self._timed_out(timeout)
        return self._response(result, time.monotonic() - begun)

    async def _started(self, lease: Lease) -> None:
        message = await lease.receive()
        if message is None or "started" not in message:
            why = message["error"] if message is not None else "its keeper has ended"
            raise CapabilityFailed("program_failed", f"the program could not be started: {why}")

    async def _carried(self, lease: Lease) -> dict[str, Any]:
        result: dict[str, Any] | None = None
        async with anyio.create_task_group() as group:
            self._guarded(group, self._feed)
            async with anyio.create_task_group() as outputs:
                for output in self._outputs:
                    self._guarded(outputs, self._forward, output, lease, within=group)
                result = await lease.receive()
                for output in self._outputs:
                    output.end()
            group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if result is None or "exit" not in result:
            raise CapabilityFailed("program_failed", "the keeper of the program was killed, and the program with it")
        return result

    def _guarded(
        self,
        group: anyio.abc.TaskGroup,
        work: Callable[..., Awaitable[None]],
        *arguments: Any,
        within: anyio.abc.TaskGroup | None = None,
    ) -> None:
        """Run it beside the others; what it raises ends them and is raised alone, not in a group."""

        async def guard() -> None:
            try:
                await work(*arguments)
            except Exception as error:  # noqa: BLE001 (raised where all have ended)
                self._failure = self._failure or error
                (within or group).cancel_scope.cancel()

        group.start_soon(guard)

    async def _feed(self) -> None:
        """Hand the request's body to the program, as far as it takes it."""
        try:
            async for chunk in self._body:
                await self._write(memoryview(chunk))
        except BrokenPipeError:
            return  # it reads no more of it
        finally:
            self._pipes.close(self._pipes.stdin)

    async def _write(self, left: memoryview) -> None:
        while left:
            try:
                left = left[os.write(self._pipes.stdin, left[:_READ_BYTES]) :]
            except BlockingIOError:
                await anyio.wait_writable(self._pipes.stdin)

    async def _forward(self, output: _Output, lease: Lease) -> None:
        while (frame := await output.read()) is not None:
            async with self._sending:
                await self._send(frame)
            if output.full:
                break
        if output.full:
            lease.drop(_NAMES[output.stream])

    def _timed_out(self, timeout: float | None) -> CapabilityTimeout:
        return CapabilityTimeout("capability_timeout", f"the program was killed after the {timeout} s of `timeout`")

    def _response(self, result: dict[str, Any], duration: float) -> RunResponse:
        out, err = self._outputs
        more_out, more_err = result["dropped"]
        number = -result["exit"]
        name = ""
        with suppress(ValueError):
            name = signal.Signals(number).name if number > 0 else ""
        return RunResponse(
            returncode=result["exit"],
            signal=name,
            exceeded=result["exceeded"],
            duration=duration,
            cpu_seconds=result["cpu_seconds"],
            max_rss_bytes=result["max_rss_bytes"],
            stdout_bytes=out.seen + out.dropped + more_out,
            stderr_bytes=err.seen + err.dropped + more_err,
            stdout_dropped=out.dropped + more_out,
            stderr_dropped=err.dropped + more_err,
        )

"""Members that are real and cheap: processes that do nothing, made by a factory that does as it is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess


class ProcessMember:
    """A `cat` that reads a pipe nobody writes to: it ends with this process too, however that ends."""

    def __init__(self, held: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = held
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._died: asyncio.Future[str] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._on_death)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def died(self) -> asyncio.Future[str]:
        """Done when the process has been reaped."""
        return self._died

    def memory(self) -> int:
        """What the factory was told that it holds."""
        return self._held

    def kill(self) -> None:
        """Let it die as a crash would."""
        self._process.send_signal(signal.SIGKILL)

    async def close(self) -> None:
        """Kill it and wait until it has been reaped."""
        self.kill()
        await asyncio.shield(self._died)

    def _on_death(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._died.set_result(f"exit {self._process.wait()}")


class ProcessFactory:
    """Makes `ProcessMember`s. Clear `gate` to hold creations up; set `failure` to have them fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.held = 0
        self.attempts = 0
        self.most_at_once = 0
        self.made: list[ProcessMember] = []
        self._running = 0

    async def create(self) -> ProcessMember:
        """A member, once the gate is open."""
        self.attempts += 1
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            self.made.append(ProcessMember(self.held))
            return self.made[-1]
        finally:
            self._running -= 1

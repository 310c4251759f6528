"""What is there for the attacks to go for: files, sockets, processes and memory that no session has any business with.

All of it is open to every user of the machine, so that nothing but the sandbox can hold who goes for it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
from base64 import b64encode
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

from tests.acceptance.sandbox.attacks import toolbox

IPC_CREAT, IPC_RMID = 0o1000, 0
SHMCTL, MSGCTL, MSGSND, MQ_UNLINK = (31, 195), (71, 187), (69, 189), (241, 181)
SUID = "/usr/bin/id"
# Counts, on its standard output, signals of a kind that only one attack has sent.
VICTIM = """
import os, signal
signal.signal(signal.SIGUSR2, lambda *_: os.write(1, b"!"))
os.write(1, b".")
while True: signal.pause()
"""


class Prey:
    """The targets of one siege, in a directory that all may enter."""

    def __init__(self, place: Path) -> None:
        self.secret = secrets.token_hex(12)
        self.outside = place / "outside"
        self.abstract = f"capsule-{self.secret[:8]}"
        self.received: list[bytes] = []
        """Datagrams that have come where nobody answers."""
        self._stack = AsyncExitStack()
        self._numbers: dict[str, Any] = {}
        self._victim: subprocess.Popen[bytes]

    async def __aenter__(self) -> Self:
        self._make_files()
        self._make_victim()
        self._make_queues()
        self._make_terminal()
        await self._make_servers()
        self._make_program()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def told(self) -> dict[str, Any]:
        """What the attacks are told of it."""
        return {
            "secret": self.secret,
            "outside": str(self.outside),
            "victim": self._victim.pid,
            "host": os.getpid(),
            "abstract": self.abstract,
            "home": str(Path.home()),
            **self._numbers,
        }

    def signals(self) -> int:
        """How many the stranger has got since the last time."""
        assert self._victim.stdout is not None
        try:
            return len(os.read(self._victim.stdout.fileno(), 65_536))
        except BlockingIOError:
            return 0

    def _make_files(self) -> None:
        self.outside.mkdir()
        self.outside.chmod(0o777)
        (self.outside / "open.txt").write_text(self.secret)
        (self.outside / "open.txt").chmod(0o666)
        (self.outside / "folder").mkdir()
        (self.outside / "folder").chmod(0o777)
        os.mkfifo(self.outside / "fifo")
        (self.outside / "fifo").chmod(0o666)
        reader = os.open(self.outside / "fifo", os.O_RDWR | os.O_NONBLOCK)
        self._stack.callback(os.close, reader)
        self._numbers["suid"] = ""
        if os.geteuid() == 0:
            copy = self.outside / "suid"
            shutil.copy(SUID, copy)
            copy.chmod(0o4755)
            self._numbers["suid"] = str(copy)

    def _make_program(self) -> None:
        """A program in machine code, where there is a compiler."""
        self._numbers["program"] = ""
        compiler = shutil.which("cc")
        if compiler is None:
            return
        here, there = Path(__file__).with_name("program.c"), self.outside.parent / "program"
        words = [compiler, "-Os", "-s", "-static", "-nostdlib", "-ffreestanding", "-o", str(there), str(here)]
        words += [f'-DOPEN="{self.outside}/open.txt"', f'-DDOOR="{self.outside}/stream.sock"']
        subprocess.run(words, check=True)
        self._numbers["program"] = b64encode(there.read_bytes()).decode()

    def _make_victim(self) -> None:
        self._victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", VICTIM], stdout=subprocess.PIPE)
        assert self._victim.stdout is not None
        self._victim.stdout.read(1)
        os.set_blocking(self._victim.stdout.fileno(), False)
        self._stack.callback(self._victim.stdout.close)
        self._stack.callback(self._victim.wait)
        self._stack.callback(self._victim.kill)

    def _make_queues(self) -> None:
        """Shared memory and message queues of System V, and one of POSIX."""
        arm = os.uname().machine == "aarch64"
        key = 0x43000000 | secrets.randbelow(2**20)
        shm = toolbox.call("shmget", key, 4096, IPC_CREAT | 0o666)
        self._stack.callback(toolbox.raw, SHMCTL[arm], shm, IPC_RMID, 0)
        address = toolbox.call("shmat", shm, 0, 0)
        ctypes.memmove(address, self.secret.encode(), len(self.secret))
        msg = toolbox.call("msgget", key, IPC_CREAT | 0o666)
        self._stack.callback(toolbox.raw, MSGCTL[arm], msg, IPC_RMID, 0)
        self._numbers.update(shm=key, msg=key, mq=self.abstract)
        text = (1).to_bytes(8, sys.byteorder) + self.secret.encode()
        for _ in range(16):
            toolbox.raw(MSGSND[arm], msg, text, len(self.secret), 0)
        before = os.umask(0)
        queue = toolbox.call("mq_open", self.abstract.encode(), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666, 0)
        os.umask(before)
        self._stack.callback(os.close, queue)
        self._stack.callback(toolbox.raw, MQ_UNLINK[arm], self.abstract.encode())
        for _ in range(5):
            toolbox.call("mq_timedsend", queue, self.secret.encode(), len(self.secret), 0, 0)

    def _make_terminal(self) -> None:
        outer, inner = os.openpty()
        self._stack.callback(os.close, outer)
        self._stack.callback(os.close, inner)
        self._numbers["tty"] = os.ttyname(inner)
        with suppress(PermissionError):
            os.fchmod(inner, 0o666)

    async def _make_servers(self) -> None:
        """Each gives the secret away to whoever comes."""
        first = await self._serve(await asyncio.start_server(self._tell, "127.0.0.1", 0))
        self._numbers["tcp"] = first.sockets[0].getsockname()[1]
        second = await self._serve(await asyncio.start_server(self._tell, "::1", 0))
        self._numbers["tcp6"] = second.sockets[0].getsockname()[1]
        await self._serve(await asyncio.start_unix_server(self._tell, self.outside / "stream.sock"))
        await self._serve(await asyncio.start_unix_server(self._tell, f"\0{self.abstract}"))
        (self.outside / "stream.sock").chmod(0o777)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        self._numbers["udp"] = datagrams.getsockname()[1]
        self._listen(datagrams)
        for name in (str(self.outside / "datagram.sock"), f"\0{self.abstract}-datagram"):
            there = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            there.bind(name)
            self._listen(there)
        (self.outside / "datagram.sock").chmod(0o777)
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        self._numbers["knock"] = free.getsockname()[1]
        free.close()
        knocking = asyncio.create_task(self._knock())
        self._stack.callback(knocking.cancel)

    async def _serve(self, server: asyncio.Server) -> asyncio.Server:
        return await self._stack.enter_async_context(server)

    def _listen(self, there: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        there.settimeout(0)
        loop.add_reader(there, self._answer, there)
        self._stack.callback(there.close)
        self._stack.callback(loop.remove_reader, there)

    def _answer(self, there: socket.socket) -> None:
        with suppress(OSError):
            data, sender = there.recvfrom(4096)
            self.received.append(data)
            if sender:
                there.sendto(self.secret.encode(), sender)

    async def _knock(self) -> None:
        """Come to a port again and again, in case somebody listens there."""
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._numbers["knock"])
                writer.write(self.secret.encode())
                await writer.drain()
                writer.close()
            await asyncio.sleep(0.05)

    async def _tell(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(self.secret.encode())
            await writer.drain()
        writer.close()

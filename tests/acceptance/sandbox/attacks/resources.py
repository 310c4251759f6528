"""Attacks on what all share: processes, memory, disk, descriptors, the processor. The neighbour still has to answer."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import socket
import threading
import time
from typing import Any

from tests.acceptance.sandbox.attacks.attack import Collection
from tests.acceptance.sandbox.attacks.siege import Attacker
from tests.acceptance.sandbox.attacks.toolbox import Prey, call

collection = attack = Collection()

MIB = 2**20
FEW = {"max_processes": 24}
SMALL = {"memory_bytes": 160 * MIB}
HELD = 400
"""So many MiB are asked for: more than twice what is allowed, and nothing to the machine."""
UNCOUNTED = ("landlock", "namespaces")
NO_GROUP = "only a control group counts what no process maps, and not every user can make one"
NO_COUNT = "the system would count those of all the user's processes, and the box counts processes"
NO_QUOTA = "scratch is a directory among others there"
PATIENCE = 1.0
"""Seconds for which what was got is held: a box looks ten times in one."""
TOO_LONG = 5.0
"""Seconds in which the neighbour answers, on a busy machine too."""


async def is_slow(attacker: Attacker) -> str | None:
    """How long the neighbour takes to answer meanwhile, if that is too long."""
    neighbour = attacker.siege.neighbours[attacker.level]
    loop = asyncio.get_running_loop()
    while attacker.result is None:
        begun = loop.time()
        result = await neighbour.run("6 * 7", timeout=60.0)
        if result.text != "42":
            return f"the neighbour answered {result.verdict}"
        if loop.time() - begun > TOO_LONG:
            return f"the neighbour took {loop.time() - begun:.1f} s"
        await asyncio.sleep(0.05)
    return None


def multiply(wanted: int, *, leave: bool = False) -> str:
    """So many processes that live at once; with `leave`, away from this one and its group."""
    read, write = os.pipe()
    held, release = os.pipe()
    for _ in range(wanted):
        pid = os.fork()
        if pid:
            if leave:
                os.waitpid(pid, 0)
            continue
        try:
            if leave:
                os.setsid()
                if os.fork():
                    os._exit(0)
            os.write(write, b".")
            os.close(release)
            os.read(held, 1)
        finally:
            os._exit(0)
    count = 0
    while count < wanted:
        count += len(os.read(read, 65_536))
    time.sleep(PATIENCE / 2)
    return f"{count} processes"


@attack(options=FEW, dies=True, beside=is_slow)
def multiply_beyond_the_bound(prey: Prey) -> str | None:
    return multiply(100)


@attack(options=FEW, dies=True, beside=is_slow)
def multiply_and_go_away(prey: Prey) -> str | None:
    """Each becomes a daemon: whoever looks for children of children has lost it."""
    return multiply(100, leave=True)


@attack(dies=True, beside=is_slow, ways=("child",))
def multiply_where_nobody_set_a_bound(prey: Prey) -> str | None:
    return multiply(700)


@attack(dies=True, beside=is_slow, ways=("child",), residual=("landlock/ordinary",), risk=NO_COUNT, grouped=True)
def start_threads_without_end(prey: Prey) -> str | None:
    stop = threading.Event()
    threads = []
    try:
        for _ in range(700):
            thread = threading.Thread(target=stop.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    finally:
        stop.set()
    return f"{len(threads)} threads"


@attack(control="never", why="it forks until it is stopped", options=FEW, dies=True, timeout=10.0, beside=is_slow)
def fork_for_ever(prey: Prey) -> str | None:
    """Every child does the same."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)
    return None


@attack(options=SMALL, dies=True, beside=is_slow)
def hold_memory(prey: Prey) -> str | None:
    kept = [bytearray(os.urandom(MIB)) for _ in range(HELD)]
    time.sleep(PATIENCE)
    return f"{len(kept)} MiB"


@attack(options=SMALL, dies=True)
def hold_memory_in_children(prey: Prey) -> str | None:
    read, write = os.pipe()
    for _ in range(4):
        if os.fork() == 0:
            try:
                kept = [bytearray(os.urandom(MIB)) for _ in range(HELD // 4)]
                os.write(write, b"." if kept else b"")
                time.sleep(30)
            finally:
                os._exit(0)
    os.close(write)
    count = 0
    while count < 4:
        got = os.read(read, 4)
        if not got:
            return None
        count += len(got)
    time.sleep(PATIENCE)
    return f"{HELD} MiB"


@attack(options=SMALL, dies=True)
def hold_memory_that_is_shared(prey: Prey) -> str | None:
    """It belongs to no process alone."""
    memory = mmap.mmap(-1, HELD * MIB)
    for offset in range(0, HELD * MIB, 4096):
        memory[offset] = 1
    time.sleep(PATIENCE)
    return f"{len(memory) // MIB} MiB"


def in_files(make: Any) -> str:
    """Fill files, which no process maps."""
    kept = []
    for _ in range(HELD // 25):
        file = make()
        for _ in range(25):
            written = os.write(file, bytes(MIB))
            if written < MIB:
                raise OSError(errno.ENOSPC, "a short write")
        kept.append(file)
    time.sleep(PATIENCE)
    return f"{len(kept) * 25} MiB"


@attack(options=SMALL, dies=True, residual=UNCOUNTED, risk=NO_GROUP, grouped=True)
def hold_memory_in_files_without_a_name(prey: Prey) -> str | None:
    return in_files(lambda: os.memfd_create("held"))


@attack(options=SMALL, dies=True, residual=("landlock",), risk=NO_GROUP, grouped=True)
def hold_memory_in_shared_memory(prey: Prey) -> str | None:
    def make() -> int:
        path = f"/dev/shm/{prey.secret}-{os.urandom(4).hex()}"
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        os.unlink(path)
        return file

    return in_files(make)


@attack(options=SMALL, dies=True, residual=UNCOUNTED, risk=NO_GROUP, grouped=True)
def hold_memory_in_sockets(prey: Prey) -> str | None:
    """What is sent and not read belongs to the kernel."""
    kept, size = [], 0
    while size < HELD * MIB:
        here, there = socket.socketpair()
        here.settimeout(0)
        kept.append((here, there))
        try:
            while True:
                size += here.send(bytes(65_536))
        except BlockingIOError:
            continue
    time.sleep(PATIENCE)
    return f"{size // MIB} MiB in {len(kept)} pairs"


@attack(dies=True, residual=("landlock",), risk=NO_QUOTA)
def fill_the_disk(prey: Prey) -> str | None:
    """All that it may write to, together; `scratch_bytes` is 64 MiB here."""
    size, refused = 0, 0
    home, temporary = os.environ.get("HOME", "."), os.environ.get("TMPDIR", ".")
    for place in (os.getcwd(), temporary, home, "/tmp", "/dev/shm", os.path.dirname(os.getcwd())):
        try:
            size += fill(place, 100)
        except OSError:
            refused += 1
    if size < HELD:
        raise OSError(errno.ENOSPC, f"{size} MiB, and {refused} were refused")
    return f"{size} MiB"


def fill(place: str, wanted: int) -> int:
    """Write there until it is full, or so many MiB are; they are removed when the process ends."""
    size = 0
    while size < wanted:
        path = f"{place}/fill-{os.urandom(4).hex()}"
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        os.unlink(path)
        try:
            for _ in range(10):
                os.write(file, bytes(MIB))
                size += 1
        except OSError:
            break
    return size


@attack(residual=("landlock",), risk=NO_QUOTA)
def fill_the_disk_with_names(prey: Prey) -> str | None:
    """Files of no bytes: each is a kilobyte of the kernel's own where files are in memory."""
    os.mkdir("names")
    for number in range(20_000):
        os.close(os.open(f"names/{number}", os.O_CREAT | os.O_WRONLY))
    return "20000 names"


@attack(options={"max_open_files": 256})
def open_files_without_end(prey: Prey) -> str | None:
    return f"{len([os.open('/dev/null', os.O_RDONLY) for _ in range(1000)])} files"


async def has_none_left(attacker: Attacker) -> str | None:
    """Whether the node's user can still watch a file, as the node does with its configuration."""
    while attacker.result is None:
        try:
            os.close(call("inotify_init1", 0))
        except OSError as error:
            return f"the node's user has none left: {errno.errorcode[error.errno or 0]}"
        await asyncio.sleep(0.1)
    return None


@attack(beside=has_none_left, control="never", why="it would leave none to the tests of others meanwhile")
def use_up_what_its_user_has(prey: Prey) -> str | None:
    """A user has 128 watchers in all, in whatever namespace; nobody watches longer than a second here."""
    kept: list[int] = []
    try:
        while len(kept) < 10_000:
            kept.append(call("inotify_init1", 0))
    except OSError:
        if not kept:
            raise
    time.sleep(1)
    return None


@attack(control="never", why="the neighbour answers at any level", dies=True, beside=is_slow)
def take_all_processors(prey: Prey) -> str | None:
    for _ in range(8):
        if os.fork() == 0:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                pass
            os._exit(0)
    time.sleep(3)
    return None


@attack(control="never", why="the neighbour answers at any level", beside=is_slow)
def print_without_end(prey: Prey) -> str | None:
    line = b"x" * 65_535 + b"\n"
    for number in range(1500):
        os.write(1 + number % 2, line)
    return None


@attack(options={"max_processes": 24}, dies=True, control="never", why="the box ends it at any level")
def crash_in_every_process(prey: Prey) -> str | None:
    """Each with a core of its own, if it may leave one."""
    import resource

    for _ in range(16):
        if os.fork() == 0:
            try:
                resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
            finally:
                ctypes.string_at(0)
    for _ in range(16):
        os.wait()
    return None

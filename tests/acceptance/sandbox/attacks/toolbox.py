"""What attacks are made of. Its source goes into the session ahead of theirs, so it needs the standard library alone.

An attack is a function of the prey. It answers what it got (that is an escape), or None when nothing came of it. An
OSError is what held it. Any other error is a fault of the attack, which then proves nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any


class Prey:
    """What the attacks go for; made by `siege`, which says what each is."""

    level: str
    secret: str
    mark: str
    outside: str
    node: int
    zygote: int
    box: int
    victim: int
    host: int
    directory: str
    state: str
    config: str
    neighbour: dict[str, Any]
    tcp: int
    tcp6: int
    udp: int
    address: str
    abstract: str
    knock: int
    shm: int
    msg: int
    mq: str
    tty: str
    suid: str
    program: str
    home: str

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    @property
    def processes(self) -> dict[str, int]:
        """All that no session has any business with, by what they are."""
        return {
            "node": self.node,
            "zygote": self.zygote,
            "own box": self.box,
            "neighbour": self.neighbour["worker"],
            "neighbour's box": self.neighbour["box"],
            "stranger": self.victim,
        }

    @property
    def workers(self) -> dict[str, int]:
        """Those of them that nothing but the user's own right to it keeps from being looked into."""
        return {"node": self.node, "neighbour": self.neighbour["worker"], "stranger": self.victim}

    def find(self, data: bytes | str) -> str | None:
        """The secret, if it is in there."""
        text = data.decode(errors="replace") if isinstance(data, bytes) else data
        return f"read {self.secret}" if self.secret in text else None


class Missing(Exception):
    """This machine has nothing to attack there."""


# It keeps the interpreter's lock, which a process that is forked past the interpreter would never get.
libc = ctypes.PyDLL(None, use_errno=True)

# By the names of asm/unistd.h: x86_64, aarch64 (None: it has none).
CALLS: dict[str, tuple[int, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "io_destroy": (207, 1),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_get": (252, 31),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "init_module": (175, 105),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "mq_timedreceive": (243, 183),
    "mq_timedsend": (242, 182),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def call(name: str, *arguments: Any) -> int:
    """A system call past the C library. Numbers are passed as words, bytes and buffers by address."""
    number = CALLS[name][os.uname().machine == "aarch64"]
    if number is None:
        raise Missing(f"{name} does not exist here")
    return raw(number, *arguments)


def raw(number: int, *arguments: Any) -> int:
    """The same, by number."""
    words = [ctypes.c_long(given) if isinstance(given, int) else given for given in arguments]
    libc.syscall.restype = ctypes.c_long
    answer = int(libc.syscall(ctypes.c_long(number), *words))
    if answer == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


def done(function: Callable[..., Any], *arguments: Any) -> str:
    """That a call which answers nothing was not refused."""
    function(*arguments)
    return function.__name__


def each(things: Any, attempt: Callable[[Any], Any]) -> str | None:
    """Those of several things (by name, or a list) with which an attempt got something; else what refused the last."""
    got: list[str] = []
    refused: OSError | None = None
    for name, thing in things.items() if isinstance(things, dict) else zip(things, things, strict=True):
        try:
            answer = attempt(thing)
        except OSError as error:
            refused = error
            continue
        if answer:
            got.append(f"{name}: {answer}")
    if got:
        return "; ".join(got)
    if refused is not None:
        raise refused
    return None


def any_of(attempts: dict[str, Callable[[], Any]]) -> str | None:
    """Those of several attempts that got something; else what refused the last."""
    return each(attempts, lambda attempt: attempt())


def answer(attack: Callable[[Prey], Any], prey: Prey) -> list[str]:
    """How it ended, and what there is to say of it."""
    try:
        got = attack(prey)
    except OSError as error:
        return ["held", errno.errorcode.get(error.errno or 0, repr(error))]
    except MemoryError:
        return ["held", "MemoryError"]
    except Missing as error:
        return ["missing", str(error)]
    except BaseException as error:
        return ["broken", f"{type(error).__name__}: {error}"]
    return ["escaped", str(got)[:200]] if got else ["held", "nothing came of it"]


def in_thread(attack: Callable[[Prey], Any], prey: Prey) -> list[str]:
    """From another thread than the main one."""
    answers: list[list[str]] = []
    thread = threading.Thread(target=lambda: answers.append(answer(attack, prey)))
    thread.start()
    thread.join()
    return answers[0]


def in_child(attack: Callable[[Prey], Any], prey: Prey) -> list[str]:
    """From a process that this one has forked."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.write(write, json.dumps(answer(attack, prey)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGSYS:
        return ["held", "SIGSYS"]
    return json.loads(said) if said else ["broken", f"the child ended with {code}"]


def in_program(source: str, name: str, prey: Prey) -> list[str]:
    """From another program: what a process keeps of its sandbox when it runs one."""
    code = f"{source}\nprint(json.dumps(answer({name}, Prey(**json.loads(sys.stdin.read())))))"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, input=json.dumps(vars(prey)), capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode == -signal.SIGSYS:
        return ["held", "SIGSYS"]
    return json.loads(lines[-1]) if lines else ["broken", f"{done.returncode}: {done.stderr[-300:]}"]


def report(source: str, name: str, prey: Prey, ways: list[str]) -> None:
    """Try an attack in all these ways and print how each ended, as the last line."""
    attack = globals()[name]
    prey.box = os.getppid()  # in a namespace it has another number
    answers = {}
    for way in ways:
        if way == "main":
            answers[way] = answer(attack, prey)
        elif way == "thread":
            answers[way] = in_thread(attack, prey)
        elif way == "child":
            answers[way] = in_child(attack, prey)
        else:
            answers[way] = in_program(source, name, prey)
    print(f"\n{json.dumps(answers)}", flush=True)

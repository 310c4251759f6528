"""The key store: a directory that only its user can enter, with the node's own keys and what is known of its clients'.

`keys.json` holds names, roles and fingerprints, never a secret of a client. It is replaced as a whole, so that a reader
sees the old one or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capsule.keys import CLIENT, encode, new_secret, public_key, read
from capsule.runtime import check_directory, state_directory
from capsule_protocol.errors import ArgumentError, NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, SERVER_FILE, LOCK_FILE = "keys.json", "server.key", "keys.lock"
CHECKPOINT_FILE = "checkpoint.key"
CHECKPOINT_KEY_BYTES = 32
MAX_KEYS = 10_000
"""Keys and tokens of a store, revoked ones included."""
MAX_BYTES = 16 * 2**20
"""A larger file is not a key store's."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
"""What names of keys and principals look like; those of the system (`uid:1000`) cannot be had."""

KeyRole = Literal["viewer", "user", "operator", "admin"]
KeyKind = Literal["key", "token"]


class KeyRecord(BaseModel):
    """One key or token: all that is kept of it. Times are seconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME)]
    principal: Annotated[str, Field(pattern=NAME)]
    role: KeyRole
    kind: KeyKind
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: float
    expires: float | None = None
    revoked: float | None = None

    def state(self, now: float) -> Literal["valid", "expired", "revoked"]:
        """Whether it lets anybody in."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    keys: Annotated[tuple[KeyRecord, ...], Field(max_length=MAX_KEYS)] = ()


class KeyStore:
    """The store in one directory, which is made at first need. Everything raises NodeError where it is not safe."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or state_directory() / "keys"

    def prepare(self) -> None:
        """Make the directory, and refuse one that others can enter."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NodeError("address_refused", f"{self.directory} cannot be made: {error.strerror}") from error
        check_directory(self.directory)

    def server_secret(self) -> bytes:
        """The node's own secret key, made when it is first asked for."""
        self.prepare()
        with self._locked():
            path = self.directory / SERVER_FILE
            if not path.exists():
                self._write(SERVER_FILE, encode(CLIENT, new_secret()) + "\n")
            word = _read(path).strip()
            try:
                if word.startswith(CLIENT):
                    return read(word).secret
            except ArgumentError:
                word = ""  # it is cut off, or was edited
            raise NodeError("address_refused", f"{path} holds no key of a node", hint="Restore it from a backup.")

    def checkpoint_key(self) -> bytes:
        """What checkpoints of sessions are signed with, made when it is first asked for."""
        self.prepare()
        with self._locked():
            path = self.directory / CHECKPOINT_FILE
            if not path.exists():
                self._write(CHECKPOINT_FILE, secrets.token_hex(CHECKPOINT_KEY_BYTES) + "\n")
            word = _read(path).strip()
            try:
                key = bytes.fromhex(word)
            except ValueError:
                key = b""  # it is cut off, or was edited
            if len(key) != CHECKPOINT_KEY_BYTES:
                hint = "Restore it from a backup, or remove it: then nothing that was saved before can be restored."
                raise NodeError("address_refused", f"{path} holds no key for checkpoints", hint=hint)
            return key

    def server_public(self) -> bytes:
        """The node's public key, which its clients must know."""
        return public_key(self.server_secret())

    def records(self) -> tuple[KeyRecord, ...]:
        """All keys and tokens, in the order in which they were made."""
        path = self.directory / FILE
        if not path.exists():
            return ()
        try:
            return _File.model_validate_json(_read(path)).keys
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise NodeError("address_refused", f"{path} is no key store: {where} {first['msg']}") from error

    def add(self, record: KeyRecord) -> None:
        """Keep a new one. Raises ArgumentError if its name is in use; that of a revoked one may be used again."""
        self.prepare()
        with self._locked():
            kept = [known for known in self.records() if known.name != record.name or known.revoked is not None]
            if len(kept) != len(self.records()):
                raise ArgumentError("name", f"there is a key {record.name!r}", allowed="another name, or revoke it")
            if len(kept) >= MAX_KEYS:
                raise ArgumentError("name", f"there are {len(kept)} keys", allowed=f"at most {MAX_KEYS}")
            self._save((*kept, record))

    def revoke(self, name: str, now: float) -> KeyRecord:
        """Let it in no more. Raises ArgumentError if there is none of this name that was not revoked."""
        self.prepare()
        with self._locked():
            records = self.records()
            found = next((known for known in records if known.name == name and known.revoked is None), None)
            if found is None:
                valid = sorted(known.name for known in records if known.revoked is None)
                raise ArgumentError("name", f"there is no key {name[:64]!r}", allowed=", ".join(valid) or "none")
            revoked = found.model_copy(update={"revoked": now})
            self._save(tuple(revoked if known is found else known for known in records))
            return revoked

    def _save(self, records: tuple[KeyRecord, ...]) -> None:
        data = _File(keys=records).model_dump(exclude_none=True)
        self._write(FILE, json.dumps(data, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        """Replace a file as a whole, so that it survives the loss of power; nobody else may read it."""
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.directory)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.directory / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.directory / LOCK_FILE, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(path: Path) -> str:
    """What a file of the store holds, if it is ours alone."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise NodeError("address_refused", f"{path} can be read by others", hint=f"Run: chmod 600 {path}")
            return file.read(MAX_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError("address_refused", f"{path} cannot be read: {error}") from error

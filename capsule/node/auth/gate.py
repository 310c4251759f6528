"""The gate of a front: who comes in, whether they may do what they ask for, and what they use."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import zmq

from capsule.keys import fingerprint
from capsule.node.auth import quotas
from capsule.node.auth.keyring import Keyring
from capsule.node.auth.keystore import FILE, KeyStore
from capsule.node.auth.principals import ANONYMOUS, Principal, group_id, principal_of_credentials
from capsule.node.auth.quotas import Bucket, Usage
from capsule.node.auth.zap import Authenticator
from capsule_protocol.errors import CapsuleError, NodeError, SessionError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from capsule.node.front.hosted import Hosted
    from capsule.node.tasks import Tasks
    from capsule.settings.service import QuotaConfig, ServeConfig

logger = logging.getLogger("capsule.auth")

MEASURED = 1.0
"""Seconds for which the measured memory of a principal's sessions is used again."""
EVERYBODY = "default"
"""The entry of `quotas` for those that have none of their own."""


class House(Protocol):
    """What the gate needs of the front."""

    config: ServeConfig
    tasks: Tasks

    def owned(self, owner: str) -> Iterable[Hosted]:
        """The sessions of a principal."""

    def recheck(self) -> None:
        """Drop the connections whose key is not valid any more."""


class Gate:
    """One for each front. The key store is opened at first need."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop) -> None:
        self._house = house
        self._loop = loop
        self._store = KeyStore()
        self._keyring: Keyring | None = None
        self._authenticator: Authenticator | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._buckets: dict[str, Bucket] = {}
        self._memory: dict[str, tuple[float, int]] = {}
        if house.config.group is not None:
            group_id(house.config.group)  # a name that does not exist is told at once

    # --- who ---

    def local(self, uid: int, gid: int) -> Principal | None:
        """The principal of a process of this machine; None: it may not come in."""
        return principal_of_credentials(uid, gid, self._house.config.group)

    def by_key(self, mark: str) -> Principal:
        """The principal whose key this is the fingerprint of."""
        return self._ring().find(mark, "key") or ANONYMOUS

    def by_token(self, token: str) -> Principal:
        """The principal of a token. Raises NodeError `access_denied`."""
        found = None
        if self._keyring is not None or (self._store.directory / FILE).exists():
            found = self._ring().find(fingerprint(token), "token")
        if found is None:
            raise NodeError("access_denied", "the token is not known, or not valid any more")
        return found

    def valid(self, principal: Principal) -> bool:
        """Whether what proved it still does."""
        return not principal.key or (self._keyring is not None and self._keyring.valid(principal.key))

    def encrypted(self) -> tuple[zmq.Context[zmq.Socket[bytes]], bytes]:
        """The context for sockets that take clients with known keys, and the node's secret key."""
        ring, context = self._ring(), self.context()
        if self._authenticator is None:
            self._authenticator = Authenticator(context, self._loop, self._accepts)
        return context, ring.secret

    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The context for the sockets of TCP listeners."""
        if self._context is None:
            self._context = zmq.Context()
        return self._context

    def close(self) -> None:
        """After all listeners are closed."""
        if self._keyring is not None:
            self._keyring.close()
        if self._authenticator is not None:
            self._authenticator.close()
        if self._context is not None:
            self._context.term()

    # --- what ---

    def admit(self, principal: Principal, kind: str, size: int) -> None:
        """Let a message of this type and size through. Raises SessionError `permission_denied`, `quota_exceeded`."""
        if not principal.may(kind):
            message = f"the role {principal.role!r} is too small for {kind!r}"
            raise SessionError("permission_denied", message)
        bucket = self._bucket(principal.name)
        if bucket is not None:
            now = self._loop.time()
            if kind in quotas.RATED:
                bucket.check(now)
            bucket.spend(size, now)

    def carried(self, principal: Principal, size: int) -> None:
        """So many bytes were sent to it."""
        bucket = self._bucket(principal.name)
        if bucket is not None:
            bucket.spend(size, self._loop.time())

    def check_open(self, owner: str, opening: int) -> None:
        """Whether it may have one more session, beside those that are being opened. Raises `quota_exceeded`."""
        quota = self._quota(owner)
        if quota is not None:
            sessions = list(self._house.owned(owner))
            quotas.check_open(quota, Usage(len(sessions) + opening, memory=self._used(owner, quota, sessions)))

    def check_execute(self, owner: str, hosted: Hosted) -> None:
        """Whether the owner of a session may have one more execution in it. Raises `quota_exceeded`."""
        quota = self._quota(owner)
        if quota is not None:
            sessions = list(self._house.owned(owner))
            unfinished = [one.under_way for one in sessions if one.under_way]
            running = len(unfinished)
            usage = Usage(len(sessions), running, sum(unfinished) - running, self._used(owner, quota, sessions))
            quotas.check_execute(quota, usage, busy=hosted.under_way > 0)

    def refused(self, principal: Principal, action: str, error: CapsuleError) -> None:
        """Tell the operator. Whether a session, or a promise, exists is no matter here either: both are told alike."""
        if error.code in _TOLD or (error.code in _OF_OTHERS and not principal.sees_all):
            name = principal.name or "unknown"
            logger.warning("refused: principal=%s action=%s code=%s", name, action, error.code)

    # --- inside ---

    def _ring(self) -> Keyring:
        if self._keyring is None:
            self._keyring = Keyring(self._store, self._house.tasks, self._house.recheck)
        return self._keyring

    def _accepts(self, mark: str) -> bool:
        """Whether ZeroMQ may let this key in: it is known, or a token may follow."""
        ring = self._ring()
        return ring.find(mark, "key") is not None or (ring.has_tokens and not ring.knows(mark))

    def _quota(self, owner: str) -> QuotaConfig | None:
        configured = self._house.config.quotas
        return configured.get(owner) or configured.get(EVERYBODY)

    def _bucket(self, owner: str) -> Bucket | None:
        if not self._house.config.quotas:  # mostly
            return None
        quota = self._quota(owner)
        if quota is None or quota.bytes_per_second is None:
            return None
        bucket = self._buckets.get(owner)
        if bucket is None or bucket.rate != quota.bytes_per_second:
            if len(self._buckets) >= quotas.MAX_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[owner] = Bucket(quota.bytes_per_second, self._loop.time())
        return bucket

    def _used(self, owner: str, quota: QuotaConfig, sessions: list[Hosted]) -> int:
        """Measured where there is a limit only: the system is asked for the memory of each worker."""
        if quota.memory_bytes is None:
            return 0
        now = self._loop.time()
        at, memory = self._memory.get(owner, (-MEASURED, 0))
        if now - at >= MEASURED:
            memory = sum(one.session.info().memory for one in sessions)
            self._memory[owner] = now, memory
        return memory


_OF_OTHERS: frozenset[str] = frozenset({"session_unknown", "promise_unknown"})
_TOLD: frozenset[str] = frozenset({"access_denied", "permission_denied", "quota_exceeded"})

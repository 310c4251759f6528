"""Principals: on whose behalf a connection acts, and what its role allows."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Final, Literal, get_args

from capsule_protocol.errors import NodeError

Role = Literal["none", "viewer", "user", "operator", "admin"]
"""Each may do what those before it may. `none` may only greet, with a token that says who it is."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
_RANK: Final[dict[Role, int]] = {role: rank for rank, role in enumerate(ROLES)}

NEEDED: Final[dict[str, Role]] = {
    **dict.fromkeys(("hello", "heartbeat", "shutdown", "error"), "none"),
    **dict.fromkeys(("info", "sessions", "promises", "promise", "read_log", "watch", "detach", "resume"), "viewer"),
    **dict.fromkeys(("event_ack", "stream_credit", "stream_close"), "viewer"),
    "drain": "operator",
}
"""The least role for each type of message; those that are not named need `user`. `watch` is `attach` to look on."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Sessions belong to the name; `key` is the fingerprint of what proved it, `""` where the system did."""

    name: str
    role: Role
    key: str = ""

    @property
    def sees_all(self) -> bool:
        """Whether the sessions of others exist for it."""
        return self.is_at_least("operator")

    def may(self, kind: str) -> bool:
        """Whether its role is enough for a message of this type."""
        return self.is_at_least(NEEDED.get(kind, "user"))

    def is_at_least(self, role: Role) -> bool:
        """Whether its role is this one, or one that may do more."""
        return _RANK[self.role] >= _RANK[role]


LOCAL: Final = Principal(f"uid:{os.getuid()}", "admin")
"""The user whose node it is."""
ANONYMOUS: Final = Principal("", "none")
"""Who has not said yet who it is."""
INSECURE: Final = Principal("tcp:insecure", "user")
"""Everybody who comes over a TCP listener without encryption."""


def principal_of_credentials(uid: int, gid: int, group: str | None) -> Principal | None:
    """Who a process of this machine is, by what the system says of it; None: it may not come in.

    The node's own user is its admin; a member of the configured `group` is a principal of its own with role `user`.
    """
    if uid == os.getuid():
        return LOCAL
    if group is not None and group_id(group) in _groups(uid, gid):
        return Principal(f"uid:{uid}", "user")
    return None


def group_id(group: str) -> int:
    """The number of a group. Raises NodeError `address_refused` if there is none of this name."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise NodeError("address_refused", f"there is no group {group!r}", hint="Correct `[serve] group`.") from None


def _groups(uid: int, gid: int) -> set[int]:
    try:
        return {gid, *os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)}
    except KeyError:  # a user without an entry has the one group that the system told
        return {gid}

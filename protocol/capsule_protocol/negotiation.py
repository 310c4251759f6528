"""Negotiation: what two ends agree on in `hello` and `welcome`. Pure functions on message bodies.

The ends need a major version in common; of it they speak the smaller minor, which the higher one knows too. Features
are names, the agreement holds those that both have. Of each limit the smaller value counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS, Limits

VERSION = "1.0"
VERSIONS = (VERSION,)
"""The highest minor of each major version that this implementation speaks."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What holds on a link after the greeting."""

    version: str
    features: frozenset[str]
    limits: Limits
    epoch: int = 0


def hello(role: str, features: frozenset[str] = frozenset(), limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """The body of `hello`."""
    return {
        "versions": list(VERSIONS),
        "features": sorted(features),
        "limits": {"message_bytes": limits.message_bytes},
        "role": role,
    }


def agree(
    offer: dict[str, Any],
    features: frozenset[str] = frozenset(),
    limits: Limits = DEFAULT_LIMITS,
    epoch: int = 0,
    versions: tuple[str, ...] = VERSIONS,
) -> Agreement:
    """What the receiver of a `hello` settles on. Raises RemoteProtocolError, `version_mismatch` among others."""
    common = _common_version(_texts(offer, "versions"), versions)
    both = features & frozenset(_texts(offer, "features"))
    return Agreement(common, both, _smaller(limits, offer.get("limits")), epoch)


def welcome(agreement: Agreement) -> dict[str, Any]:
    """The body of `welcome`."""
    return {
        "version": agreement.version,
        "features": sorted(agreement.features),
        "limits": {"message_bytes": agreement.limits.message_bytes},
        "epoch": agreement.epoch,
    }


def accept(
    answer: dict[str, Any],
    features: frozenset[str] = frozenset(),
    limits: Limits = DEFAULT_LIMITS,
    versions: tuple[str, ...] = VERSIONS,
) -> Agreement:
    """What the sender of a `hello` takes from the `welcome`. Raises RemoteProtocolError if that was never offered."""
    version = answer.get("version")
    if not isinstance(version, str) or _common_version([version], versions) != version:
        raise RemoteProtocolError("version_mismatch", f"the peer chose version {version!r:.40}, offered: {versions}")
    chosen = frozenset(_texts(answer, "features"))
    if not chosen <= features:
        raise RemoteProtocolError("invalid_message", f"features that were not offered: {sorted(chosen - features)[:8]}")
    epoch = answer.get("epoch", 0)
    if type(epoch) is not int or epoch < 0:
        raise RemoteProtocolError("invalid_message", "epoch: not a natural number")
    return Agreement(version, chosen, _smaller(limits, answer.get("limits")), epoch)


def _common_version(theirs: list[str], ours: tuple[str, ...]) -> str:
    ours_by_major = dict(map(_parts, ours))
    common = [
        (major, min(minor, ours_by_major[major])) for major, minor in map(_parts, theirs) if major in ours_by_major
    ]
    if not common:
        raise RemoteProtocolError(
            "version_mismatch",
            f"no common version: the peer speaks {theirs[:8]}, this end {list(ours)}",
            details={"versions": list(ours)},
        )
    return "{}.{}".format(*max(common))


def _parts(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    if not (major.isdecimal() and minor.isdecimal() and version.isascii() and len(version) <= 16):
        raise RemoteProtocolError("invalid_message", f"versions: {version[:20]!r} is not MAJOR.MINOR")
    return int(major), int(minor)


def _texts(body: dict[str, Any], field: str) -> list[str]:
    value = body.get(field, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RemoteProtocolError("invalid_message", f"{field}: not a list of texts")
    return value


def _smaller(limits: Limits, theirs: object) -> Limits:
    if theirs is None:
        return limits
    size = theirs.get("message_bytes", limits.message_bytes) if isinstance(theirs, dict) else None
    if type(size) is not int or size < 1:
        raise RemoteProtocolError("invalid_message", "limits: message_bytes is not a positive number")
    return replace(limits, message_bytes=min(limits.message_bytes, size))

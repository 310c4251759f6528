"""Secrets that calls are made with: code names them, and never sees them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Secrets:
    """Those that the operator has configured; they are read when they are used, so a new one counts at once."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = config

    def value(self, name: str) -> str:
        """The secret. Raises CapabilityFailed `secret_unknown`, whose message has nothing of it."""
        kind, _, place = self._config.get(name, "").partition(":")
        if kind == "env" and place in os.environ:
            return os.environ[place]
        if kind == "env":
            raise CapabilityFailed("secret_unknown", f"the variable of the secret {name!r} is not set")
        if kind != "file":
            raise CapabilityFailed("secret_unknown", f"the node has no secret {name[:100]!r}")
        try:
            return Path(place).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, ValueError) as error:
            reason = type(error).__name__
            raise CapabilityFailed("secret_unknown", f"the secret {name!r} cannot be read ({reason})") from None

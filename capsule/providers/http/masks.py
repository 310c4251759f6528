"""Takes secrets out of what a server sends back."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOT_IN_SECRETS = re.compile(rb"[^\x20-\x7e]")
"""What no header can have, and no form of a secret."""


class Mask:
    """Replaces every occurrence of some secrets by as many `*`, also where it is spread over several chunks.

    Known forms: as it is, percent-encoded, as JSON writes it, in base64. What a server makes of a secret beyond these
    is not recognised.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        needles = {form for secret in secrets if secret for form in _forms(secret)}
        self._needles = sorted(needles, key=lambda needle: (-len(needle), needle))
        self._pattern = re.compile(b"|".join(map(re.escape, self._needles))) if needles else None
        self._held = b""

    @property
    def active(self) -> bool:
        """Whether there is anything to hide."""
        return self._pattern is not None

    def text(self, text: str) -> str:
        """A whole text without the secrets."""
        if self._pattern is None:
            return text
        # A text that is no UTF-8 comes out as it went in.
        data = text.encode("utf-8", "surrogateescape")
        return self._pattern.sub(_stars, data).decode("utf-8", "surrogateescape")

    def feed(self, chunk: bytes) -> bytes:
        """The next part of a body; an end in which a secret of this length could begin is held back.

        It is held back whatever stands there: else code that has a server send a guess, and then nothing for a while,
        would see from what comes at once whether a secret begins like that.
        """
        if self._pattern is None:
            return chunk
        data = self._held + chunk
        cut = self._safe(data)
        for found in self._pattern.finditer(data):
            if found.start() < cut:
                cut = max(cut, found.end())
        self._held = data[cut:]
        return self._pattern.sub(_stars, data[:cut])

    def end(self) -> bytes:
        """What was held back, as nothing follows."""
        held, self._held = self._held, b""
        return self._pattern.sub(_stars, held) if self._pattern else held

    def _safe(self, data: bytes) -> int:
        """Where no secret can begin any more whose end has not come yet: near the end, or behind a line break, say."""
        cut = max(0, len(data) - len(self._needles[0]) + 1)
        for found in _NOT_IN_SECRETS.finditer(data, cut):
            cut = found.end()
        return cut


def _stars(found: re.Match[bytes]) -> bytes:
    return b"*" * len(found[0])


def _forms(secret: str) -> set[bytes]:
    plain = secret.encode()
    encoded = {quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    encoded |= {re.sub("%..", lambda found: found[0].lower(), form) for form in encoded}
    forms = {plain, *(form.encode() for form in encoded)}
    return forms | {base64.b64encode(plain).rstrip(b"="), base64.urlsafe_b64encode(plain).rstrip(b"=")}

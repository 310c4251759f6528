"""The provider `files`: directories that a grant names, walked so that no name leads out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.providers.files.provider import FilesProvider

if TYPE_CHECKING:
    from capsule.broker.sdk import Provider

__all__ = ["FilesProvider", "provider"]


def provider() -> Provider:
    """A new one, as the broker's registry asks for it."""
    return FilesProvider()

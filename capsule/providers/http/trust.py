"""Which certificates are believed."""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from pathlib import Path

_CONTEXTS = 16


class Trust:
    """TLS contexts: that of the public authorities, and those with the authorities of a file beside them."""

    def __init__(self, extra: Path | None = None) -> None:
        self._extra = extra
        self._loading = asyncio.Lock()
        self._threads = anyio.CapacityLimiter(4)
        self._contexts: OrderedDict[tuple[object, ...], ssl.SSLContext] = OrderedDict()

    async def context(self, ca_file: Path | None) -> ssl.SSLContext:
        """The one for a scope. Raises OSError (ssl.SSLError is one) if the file cannot be used."""
        key = () if ca_file is None else await anyio.to_thread.run_sync(_key, ca_file, limiter=self._threads)
        async with self._loading:
            if key not in self._contexts:
                self._contexts[key] = await anyio.to_thread.run_sync(self._load, ca_file, limiter=self._threads)
                while len(self._contexts) > _CONTEXTS:
                    self._contexts.popitem(last=False)
        self._contexts.move_to_end(key)
        return self._contexts[key]

    def _load(self, ca_file: Path | None) -> ssl.SSLContext:
        # Both take a tenth of a second, so they are put off until they are needed.
        import httpx

        # Without the environment, whose variables could name authorities that nobody has chosen for this.
        context = httpx.create_ssl_context(trust_env=False)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without DHE, for whose groups of any size a server could have the node compute; nor does it do so again later.
        context.set_ciphers("@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM")
        context.options |= ssl.OP_NO_RENEGOTIATION
        for path in filter(None, (self._extra, ca_file)):
            context.load_verify_locations(cafile=path)
        return context


def check_file(ca_file: Path) -> None:
    """Raise OSError if the file has no certificates of authorities."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)


def _key(ca_file: Path) -> tuple[object, ...]:
    """A file that was replaced is read anew."""
    status = ca_file.stat()
    return ca_file, status.st_mtime_ns, status.st_size, status.st_ino

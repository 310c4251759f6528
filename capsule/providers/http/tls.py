"""TLS over a connection, with its handshake in a thread: what a server may choose can take a tenth of a second."""

from __future__ import annotations

import ssl
from typing import Any

import anyio
import httpcore

_RECORD_BYTES = 2**16


class TlsStream(httpcore.AsyncNetworkStream):
    """Secured by `shake_hands`. What follows costs microseconds a record, and is done where it is asked for."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, context: ssl.SSLContext, name: str | None) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    async def shake_hands(self, timeout: float) -> None:
        """Raises httpcore.ConnectTimeout after so many seconds in all, ConnectError for what is not believed."""
        try:
            with anyio.fail_after(timeout):
                while not await self._step():
                    if not await self._more(timeout):
                        raise httpcore.ConnectError("the server ended the connection instead of a handshake")
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (ssl.SSLError, httpcore.ReadError, httpcore.WriteError) as error:
            raise httpcore.ConnectError(str(error)) from error
        except (httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
            raise httpcore.ConnectTimeout(str(error)) from error

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes; none at the end."""
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush(timeout)
                await self._more(timeout)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send them all."""
        left = memoryview(buffer)
        try:
            while left:
                left = left[self._tls.write(left) :]
                await self._flush(timeout)
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        """What the connection knows of itself."""
        return self._tls if info == "ssl_object" else self._inner.get_extra_info(info)

    async def _step(self) -> bool:
        """Whether the handshake is done. OpenSSL computes without the interpreter, so the loop goes on."""
        try:
            await anyio.to_thread.run_sync(self._tls.do_handshake)
        except ssl.SSLWantReadError:
            return False
        finally:
            await self._flush(None)
        return True

    async def _more(self, timeout: float | None) -> bool:
        """Bytes of the server; False if it has ended."""
        data = await self._inner.read(_RECORD_BYTES, timeout)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    async def _flush(self, timeout: float | None) -> None:
        if data := self._outgoing.read():
            await self._inner.write(data, timeout)

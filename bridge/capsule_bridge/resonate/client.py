"""Calls of a Resonate server: one endpoint, an envelope each way. What fails is told as StoreError."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import aiohttp
from pydantic import ValidationError

from capsule_bridge.resonate.wire import FOREVER, VERSION, Answer, Record, param_of, tags_of
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from capsule_bridge.records import NewPromise, Promise
    from capsule_bridge.states import State

TIMEOUT = 10.0
"""Seconds that the server may take for one answer."""
CONNECTIONS = 16
"""Requests at once; more wait."""
MAX_ANSWER = 256 * 2**20
"""Bytes of an answer; a larger one is none of ours."""
TOLD = 200
"""Characters of an answer that an error shows."""
_BUSY = {429}


class ResonateClient:
    """A server, and the connections to it. `failure`: why the last call failed; None after one that did not."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.failure: StoreError | None = None
        self._url = url.rstrip("/") + "/"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._http: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def get(self, id_: str) -> Record | None:
        """The promise, if the server knows it. Raises StoreError: `store_unavailable`, `store_refused`."""
        return await self._call("promise.get", {"id": id_})

    async def create(self, promise: NewPromise | Promise) -> Record:
        """Make the promise, or find what has its id. Raises as `get`."""
        timeout_at = FOREVER if promise.timeout_at is None else min(promise.timeout_at, FOREVER)
        data = {"id": promise.id, "timeoutAt": timeout_at, "param": param_of(promise), "tags": tags_of(promise)}
        record = await self._call("promise.create", data)
        if record is None:
            raise self._failed(f"says that it cannot find promise {promise.id!r}, which it was to make")
        return record

    async def settle(self, id_: str, state: State, value: dict[str, Any]) -> Record | None:
        """Give a verdict, and hear the one that stands; None if the server knows no such promise. Raises as `get`."""
        return await self._call("promise.settle", {"id": id_, "state": state, "value": value})

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    async def _call(self, kind: str, data: dict[str, Any]) -> Record | None:
        correlation = os.urandom(8).hex()
        request = {"kind": kind, "head": {"corrId": correlation, "version": VERSION}, "data": data}
        body = json.dumps(request).encode()
        async with self._slots:
            try:
                answer = await self._post(body)
            except (aiohttp.ClientError, OSError) as error:
                raise self._failed(f"cannot be reached: {error or type(error).__name__}") from error
        record = self._read(kind, correlation, answer)
        if record is not None and record.id != data["id"]:
            raise self._failed(f"tells of promise {record.id[:TOLD]!r}, and was asked for {data['id']!r}")
        self.failure = None
        return record

    async def _post(self, body: bytes) -> bytes:
        """Asked twice if the connection broke: each request may be repeated, and a connection at rest may be stale."""
        try:
            return await self._post_once(body)
        except aiohttp.ClientError:
            return await self._post_once(body)

    async def _post_once(self, body: bytes) -> bytes:
        if self._http is None:  # it belongs to the loop in which it is made
            timeout = aiohttp.ClientTimeout(total=TIMEOUT)
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            # Neither proxies nor passwords of the environment: those are somebody else's.
            self._http = aiohttp.ClientSession(
                headers=self._headers, timeout=timeout, connector=connector, trust_env=False
            )
        answer = bytearray()
        async with self._http.post(self._url, data=body) as response:
            async for part in response.content.iter_any():
                answer += part
                if len(answer) > MAX_ANSWER:
                    raise self._failed(f"answers with more than {MAX_ANSWER} bytes")
        return bytes(answer)

    def _read(self, kind: str, correlation: str, body: bytes) -> Record | None:
        try:
            answer = Answer.model_validate_json(body)
        except ValidationError as error:
            raise self._failed(f"answers what Resonate {VERSION} does not know: {_shown(body)}") from error
        if answer.kind != kind or answer.head.corr_id != correlation:
            raise self._failed("answers another question than it was asked")
        status = answer.head.status
        if status == 404:
            return None
        if status not in {200, 201}:
            raise self._failed(f"answers {kind} with status {status}: {answer.data!r:.{TOLD}}", status)
        try:
            return Record.model_validate(answer.data["promise"])
        except (ValidationError, TypeError, KeyError) as error:
            raise self._failed(f"tells of a promise what cannot be: {_shown(body)}") from error

    def _failed(self, what: str, status: int = 500) -> StoreError:
        """What has no prospect of another answer is refused, anything else may work later."""
        code = "store_refused" if status < 500 and status not in _BUSY else "store_unavailable"
        hint = "Look whether it runs, which version it is, and what its log says."
        self.failure = StoreError(code, f"the Resonate server at {self._url} {what}", hint=hint)
        return self.failure


def _shown(body: bytes) -> str:
    return repr(body[:TOLD].decode("utf-8", "replace"))

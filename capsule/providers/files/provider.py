"""The provider: which operations there are, whether a request is within its grant, and who does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule.broker.sdk import Descriptor, Empty, Health, Limits, Operation, Schema, Services
from capsule.providers.files import changing, reading, schemas, walking, watching, writing
from capsule.providers.files.errors import refused
from capsule.providers.files.means import Means
from capsule.providers.files.places import split
from capsule.providers.files.schemas import FilesScope
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capsule.broker.sdk import Call

OPERATIONS = {
    "read": Operation(
        "Read a file", schemas.ReadRequest, schemas.ReadResponse, effects=False, gives_body=True, returns="body"
    ),
    "write": Operation(
        "Make or replace a file, in one step", schemas.WriteRequest, schemas.WriteResponse, takes_body=True
    ),
    "append": Operation("Add to a file", schemas.AppendRequest, schemas.WriteResponse, takes_body=True),
    "list": Operation("What is in a directory", schemas.PathRequest, schemas.ListResponse, effects=False),
    "stat": Operation("What is at a path", schemas.PathRequest, schemas.StatResponse, effects=False),
    "mkdir": Operation("Make a directory", schemas.MkdirRequest, Empty),
    "move": Operation("Give a file or a directory another path", schemas.MoveRequest, Empty),
    "remove": Operation("Remove a file or a directory", schemas.RemoveRequest, Empty),
    "glob": Operation("Find files by a pattern", schemas.GlobRequest, schemas.GlobResponse, effects=False),
    "watch": Operation(
        "What happens in a directory, as lines of JSON",
        schemas.WatchRequest,
        schemas.WatchResponse,
        effects=False,
        gives_body=True,
        limits=Limits(timeout=3600.0, concurrent=4),
    ),
}
_WORK: dict[str, Callable[[Means, Call], Awaitable[Schema]]] = {
    "read": reading.read,
    "write": writing.write,
    "append": writing.append,
    "list": walking.list_,
    "stat": walking.stat,
    "mkdir": changing.mkdir,
    "move": changing.move,
    "remove": changing.remove,
    "glob": walking.glob,
    "watch": watching.watch,
}


class FilesProvider:
    """Files below the roots of a grant. What it opens it opens by descriptors, from a root's on."""

    descriptor = Descriptor("files", "1.0", OPERATIONS, FilesScope)

    def __init__(self) -> None:
        self._means = Means()
        self._stopped = False

    async def start(self, services: Services) -> None:
        """Nothing is needed of the node."""

    async def health(self) -> Health:
        """Not well if a root has been removed."""
        if self._stopped:
            return Health(ok=False, detail="stopped")
        gone = await self._means.threads.run(self._means.roots.gone)
        return Health(not gone, f"removed: {', '.join(gone)}" if gone else "")

    async def stop(self) -> None:
        """Close the roots."""
        self._stopped = True
        self._means.close()

    def check(self, scope: Any) -> None:
        """Open the roots, once and for all calls. Raises ArgumentError if one is no directory."""
        self._means.roots.check(scope)

    def admit(self, operation: str, request: Any, scope: Any) -> None:
        """Raise CapabilityDenied for a path outside of the roots, and for a change in one that is only to be read."""
        paths = [request.source, request.target] if operation == "move" else [request.path]
        for path in paths:
            root, parts = split(scope, path)
            if not OPERATIONS[operation].effects:
                continue
            if root.mode != "rw":
                message = f"{path[:200]!r}: the root may only be read, so there is no {operation!r}"
                raise CapabilityDenied("capability_outside_grant", message)
            if not parts:
                raise refused(path, "is a root itself, which stays as it is")

    async def call(self, call: Call) -> Schema:
        """Do it. It has been admitted, and looks again."""
        if self._stopped:
            raise CapabilityFailed("provider_unavailable", "files: the provider has been stopped")
        self.admit(call.operation, call.request, call.scope)
        return await _WORK[call.operation](self._means, call)

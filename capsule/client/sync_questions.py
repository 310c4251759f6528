"""What a synchronous session can be asked about code, its history and its names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsule.client.answers import Completeness, Completion, HistoryEntry, Inspection, Namespace
    from capsule.client.portal import Portal
    from capsule.client.session import AsyncSession


class Questions:
    """The questions. They wait for the cell that runs, so each takes a `timeout` in seconds (None: no limit).

    All raise ArgumentError for a bad argument, SessionError when the session cannot answer, and CapsuleError with code
    `request_timeout` when it does not in time.
    """

    def __init__(self, portal: Portal, inner: AsyncSession) -> None:
        self._portal = portal
        self._inner = inner

    def complete(self, code: str, cursor: int | None = None, *, timeout: float | None = None) -> Completion:
        """What could stand at `cursor` (an offset in characters; None: the end)."""
        return self._portal.call(self._inner.complete, code, cursor, timeout=timeout)

    def inspect(
        self, code: str, cursor: int | None = None, *, detail: int = 0, timeout: float | None = None
    ) -> Inspection:
        """What is known of the name at `cursor`; `detail` 1 adds its source."""
        return self._portal.call(self._inner.inspect, code, cursor, detail=detail, timeout=timeout)

    def is_complete(self, code: str, *, timeout: float | None = None) -> Completeness:
        """Whether `code` can run as it is, or needs more lines."""
        return self._portal.call(self._inner.is_complete, code, timeout=timeout)

    def history(
        self,
        n: int = 100,
        *,
        pattern: str | None = None,
        unique: bool = False,
        lines: tuple[int, int | None] | None = None,
        session: int = 0,
        output: bool = False,
        timeout: float | None = None,
    ) -> list[HistoryEntry]:
        """The last `n` cells that ran, or the last `n` that match the glob `pattern`.

        Or the cells `lines`, from a number to before another (None: to the end), of a `session`: 0 is this one, -1 the
        one before it, if both use one history file. `output`: with their values.
        """
        more: dict[str, Any] = {"pattern": pattern, "unique": unique, "lines": lines, "session": session}
        return self._portal.call(self._inner.history, n, **more, output=output, timeout=timeout)

    def namespace(self, *, timeout: float | None = None) -> Namespace:
        """What names the code has defined, described without their data."""
        return self._portal.call(self._inner.namespace, timeout=timeout)

    def debug(self, request: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """The response to a request of the Debug Adapter Protocol, which has a `seq` and a `command`.

        It does not wait for the code that runs. Events come to `on_background`. Raises CapsuleError `unsupported` where
        the environment has no debugpy.
        """
        return self._portal.call(self._inner.debug, request, timeout=timeout)

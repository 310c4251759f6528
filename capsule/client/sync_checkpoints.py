"""A synchronous session's names saved to a file, and brought back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.client.sync_transfers import Transfers

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from capsule.client.answers import RestoreReport, SaveReport
    from capsule.client.sources import Source


class Checkpoints(Transfers):
    """What the session has, to a file and back. Both wait for their turn behind what was submitted before."""

    def save(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        names: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> SaveReport:
        """Save the names that the code has defined to a file of this machine, without a path into the report.

        Values that cannot leave their process (open files, locks, generators …) are left out, and the report says why.
        `names`: only these, and those that their functions use. `timeout` in seconds, counted from when its turn comes.
        The file is there when it is whole. Raises ArgumentError, SessionError `checkpoint_too_large`,
        `checkpoint_failed`, and ExecutionError when it was interrupted or ended by force.
        """
        return self._portal.call(self._inner.save, path, names=names, timeout=timeout)

    def restore(
        self,
        source: Source,
        *,
        names: Iterable[str] | None = None,
        timeout: float | None = None,
        allow_other_interpreter: bool = False,
    ) -> RestoreReport:
        """Set the names in a file that `save` has made, or only some of them; all others stay as they are.

        `source` is a path, bytes or a binary file. Only what this node (in library mode: this user) has saved, of a
        session of the same principal, is ever loaded. Raises as `save` does, and SessionError `checkpoint_refused`,
        `checkpoint_mismatch`; then no name has changed. `allow_other_interpreter`: data, but no functions or classes,
        may come from another version of Python.
        """
        return self._portal.call(
            self._inner.restore,
            source,
            names=names,
            timeout=timeout,
            allow_other_interpreter=allow_other_interpreter,
        )

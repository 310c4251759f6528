"""User expressions: what a front end wants to know of the namespace when a cell has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule_kernels.display import plain
from capsule_kernels.verdicts import bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule_kernels.shell import ZMQInteractiveShell


def outcomes(shell: ZMQInteractiveShell, expressions: Mapping[str, str]) -> dict[str, Any]:
    """Each one's MIME bundle, or why it has none, as in Jupyter's `execute_reply`. An interrupt ends them all."""
    return {name: _outcome(shell, expression) for name, expression in expressions.items()}


def _outcome(shell: ZMQInteractiveShell, expression: str) -> dict[str, Any]:
    try:
        value = eval(expression, shell.user_global_ns, shell.user_ns)  # noqa: S307  # running code is what a worker is for
        data, metadata = shell.display_formatter.format(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # it may raise anything, and is told so
        said = bounded(error, shell.without_frames(error))
        return {"status": "error", "ename": said["name"], "evalue": said["message"], "traceback": said["traceback"]}
    return {"status": "ok", "data": plain(data), "metadata": plain(metadata)}

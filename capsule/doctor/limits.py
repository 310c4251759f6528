"""What the system lets this user have, against what the configuration would use."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from capsule.doctor.finding import Finding
from capsule.node.resources import PIPE_BYTES

if TYPE_CHECKING:
    from capsule.config import NodeConfig

DESCRIPTORS = 14
"""Descriptors of the node for each session."""
OWN_DESCRIPTORS = 100
"""Those that the node has without any session."""
PROCESSES = 2
"""Processes of a session whose code starts none: box and worker. Threads count too."""
THREADS = 2
"""Threads that a worker has beside its first one, at least."""


def examine(config: NodeConfig) -> list[Finding]:
    """What is to be said of the limits."""
    return [_open_files(config), _processes(config), _pipe_pages(config)]


def _open_files(config: NodeConfig) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS * config.max_sessions + config.serve.max_clients + OWN_DESCRIPTORS
    enough = (hard - OWN_DESCRIPTORS - config.serve.max_clients) // DESCRIPTORS
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return Finding("open_files", "ok", f"the hard limit is {_number(hard)}; the node needs up to {wanted}")
    message = f"the hard limit is {hard}, enough for about {max(enough, 0)} of max_sessions={config.max_sessions}"
    hint = f"Raise it (LimitNOFILE={wanted} in a systemd unit), or lower `max_sessions`."
    return Finding("open_files", "warning", message, hint)


def _processes(config: NodeConfig) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    wanted = (PROCESSES + THREADS) * config.max_sessions
    if os.geteuid() == 0:
        return Finding("processes", "ok", "the limit does not hold for root")
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Finding("processes", "ok", f"the limit is {_number(soft)}; sessions need {wanted} and what they start")
    message = (
        f"the limit is {soft}, all of this user's processes together; max_sessions={config.max_sessions} needs {wanted}"
    )
    hint = "Raise it (`ulimit -u`, LimitNPROC= or TasksMax= in a systemd unit), or lower `max_sessions`."
    return Finding("processes", "warning", message, hint)


def _pipe_pages(config: NodeConfig) -> Finding:
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text(encoding="ascii"))
        per_session = 2 * PIPE_BYTES // resource.getpagesize()
        if pages == 0 or os.geteuid() == 0 or pages >= per_session * config.max_sessions:
            return Finding("pipe_pages", "ok", "all sessions have large pipes")
        message = f"about {pages // per_session} sessions at once have large pipes, the others small ones"
        hint = "Only much output notices. As root: sysctl fs.pipe-user-pages-soft=0"
        return Finding("pipe_pages", "info", message, hint)
    return Finding("pipe_pages", "info", "the system does not tell")


def _number(limit: int) -> str:
    return "infinite" if limit == resource.RLIM_INFINITY else str(limit)

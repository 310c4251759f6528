"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "info", "warning", "error"]

CODES: dict[str, str] = {
    "configuration": "the file of the configuration can be read, and all in it is allowed",
    "interpreters": "each environment's interpreter can be started",
    "policy": "the policy is one, and each environment has the sandbox that it asks for",
    "http_address": "metrics are served to this machine only, or not at all",
    "runtime_directory": "the directory of the node's socket is this user's alone",
    "box_directory": "sessions can have directories, with sockets in them",
    "box_space": "there is room for the files of sessions",
    "store_space": "the node's store can be written, and there is room for it",
    "pidfd": "the system tells of the end of a process by a descriptor",
    "memfd_sealing": "memory that node and worker share can be sealed",
    "subreaper": "a box can take over the orphans of its worker",
    "cgroups": "control groups for memory, processes and processor time can be made and joined",
    "user_namespaces": "this user may make namespaces",
    "landlock": "the version of Landlock",
    "seccomp": "system calls can be filtered",
    "autogroup": "the processor is shared out by sessions",
    "sandbox_landlock": "code can be held to the sandbox's level `landlock`",
    "sandbox_namespaces": "code can be held to the sandbox's level `namespaces`",
    "open_files": "there are descriptors enough for as many sessions as are allowed",
    "processes": "this user may have processes enough",
    "pipe_pages": "how many sessions have large pipes for their output",
    "sqlite": "the SQLite of this Python can keep durable promises, and has no known fault that matters",
    "clock_date": "the date is one that can be",
    "clock_steady": "the clock does not jump",
    "node": "a node answers, its store can commit, and the clock that it dates promises with is the machine's",
}
"""Every code, and what is so when it is `ok`. A code names a check; how bad it is, the severity tells."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `error`: it does not work so; `warning`: it will not do for all; `info`: know it."""

    code: str
    severity: Severity
    message: str
    hint: str = ""

"""Workers that are interpreters of their own, for environments whose modules do not survive a fork.

Their zygote imports nothing of the environment: it only makes boxes. What a box has forked runs an interpreter in its
own place, and that imports all by itself, see `spawned`. What it is told comes in memory that has no name, because what
stands on a command line or in the environment of a process can be read by others.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from capsule_kernels.sandbox.levels import Sandbox

MODULE = "capsule_kernels.spawned"


class Spawning:
    """What such a worker does first, in the place of a worker's own work."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = {name: request[name] for name in ("worker", "path", "preload") if name in request}

    def __call__(self, spec: dict[str, Any], lease: int, stdout: int, stderr: int, page: int) -> NoReturn:
        """Run the interpreter. What it says before it is a worker, and why it cannot be run, is output."""
        for descriptor, wanted in ((stdout, 1), (stderr, 2)):
            os.dup2(descriptor, wanted)
        sandbox: Sandbox = spec["sandbox"]
        sandbox.hand_on()
        told = os.memfd_create("capsule-spec")
        for descriptor in (lease, page, told):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 (the function takes it by position only)
        with os.fdopen(told, "wb", closefd=False) as file:
            pickle.dump({"request": self._request, "spec": spec, "lease": lease, "page": page}, file)
        os.lseek(told, 0, os.SEEK_SET)
        os.execv(sys.executable, [sys.executable, "-P", "-m", MODULE, str(told)])  # noqa: S606 (that is what it is for)

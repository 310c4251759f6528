"""A worker that is an interpreter of its own: it imports all that it needs, and then is like any other.

Run by `spawning`, in the process that a box has forked for it. It enters its sandbox before it imports the modules of
the environment: those may start threads, which rules of the kernel would not hold, and they need not be trusted. Nor
need what is in the environment's `path`, where a file may have the name of whatever is imported here: it is looked at
from then on only.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from capsule_kernels import newborn, preloading, system

if TYPE_CHECKING:
    from capsule_kernels.sandbox.levels import Sandbox


def main() -> NoReturn:
    """Be the worker of which the descriptor on the command line tells."""
    try:
        system.set_name("capsule-worker")
        told = _read(int(sys.argv[1]))
        gc.disable()
        module, worker = preloading.load_worker(told["request"])
        preloading.call(module, "preloaded")
        gc.freeze()
        newborn.replace_main()
        spec = told["spec"] | {name: told["request"].get(name, []) for name in ("path", "preload")}
        worker(spec, told["lease"], 1, 2, told["page"])
    except BaseException:  # noqa: BLE001 (this process ends here, whatever it was)
        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(newborn.EXIT_FAILED)


def _read(descriptor: int) -> dict[str, Any]:
    """What `spawning` has written, and nobody else can have; nothing that is started from here inherits its means."""
    with os.fdopen(descriptor, "rb") as file:
        told: dict[str, Any] = pickle.load(file)  # noqa: S301 (see above)
    sandbox: Sandbox = told["spec"]["sandbox"]
    for kept in (told["lease"], told["page"], *sandbox.descriptors):
        os.set_inheritable(kept, False)  # noqa: FBT003 (the function takes it by position only)
    return told


if __name__ == "__main__":
    main()

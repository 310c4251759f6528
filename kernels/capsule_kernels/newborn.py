"""What makes a process of its own out of a fork: nothing of the parent may act in it, or be acted on by it."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from types import ModuleType
from typing import Any, NoReturn, Protocol

from capsule_kernels import descriptors, system

EXIT_FAILED = 70
_MERSENNE_WORDS = 624
"""The state of numpy's global generator (MT19937): so many words of 32 bits, all of them used up."""


class WorkerMain(Protocol):
    """What a worker is: called once, in its own process, and never to return."""

    def __call__(self, spec: dict[str, Any], lease: int, stdout: int, stderr: int, page: int, /) -> object:
        """Run the worker."""


def become_worker(spec: dict[str, Any], given: descriptors.BoxDescriptors, worker: WorkerMain, box: int) -> NoReturn:
    """Turn the process that the box has just forked into its worker."""
    try:
        system.die_with_parent(box)
        # A process group that can be killed in one step. And a session: Linux may share out the processor by sessions,
        # so what multiplies here takes nothing from the box that has to stop it.
        os.setsid()
        system.set_name("capsule-worker")
        system.unblock_signals()
        descriptors.sever(given)
        _reseed()
        _replace_main()
        gc.enable()
        worker(spec, *given)
    except BaseException:  # noqa: BLE001 (this process ends here, whatever it was)
        os.write(given.stderr, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(EXIT_FAILED)


def _reseed() -> None:
    """The generator of numpy is the same in all children; `random`, uuid, secrets and ssl see to themselves."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        # The whole state at once: `seed` would compute it, and touch a hundred pages of the zygote's on the way.
        key = numpy.frombuffer(os.urandom(4 * _MERSENNE_WORDS), "u4")
        numpy.random.set_state(("MT19937", key, _MERSENNE_WORDS, 0, 0.0))


def _replace_main() -> None:
    """Give the worker an empty `__main__`: processes that multiprocessing spawns would import the zygote's again."""
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = [""]

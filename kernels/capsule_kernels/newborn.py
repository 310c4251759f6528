"""What makes a process of its own out of a fork: nothing of the parent may act in it, or be acted on by it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import traceback
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn, Protocol

from capsule_kernels import descriptors, system

EXIT_FAILED = 70
_MERSENNE_WORDS = 624
"""The state of numpy's global generator (MT19937): so many words of 32 bits, and which of them comes next."""
_key = 0
"""Where these words are, once that is known: they are used up there, so that others can take their place."""


class WorkerMain(Protocol):
    """What a worker is: called once, in its own process, and never to return."""

    def __call__(self, spec: dict[str, Any], lease: int, stdout: int, stderr: int, page: int, /) -> object:
        """Run the worker."""


def become_worker(spec: dict[str, Any], given: descriptors.BoxDescriptors, worker: WorkerMain, box: int) -> NoReturn:
    """Turn the process that the box has just forked into its worker."""
    try:
        system.die_with_parent(box)
        spec["group"].join()
        system.give_way()
        # A process group that can be killed in one step. And a session: Linux may share out the processor by sessions,
        # so what multiplies here takes nothing from the box that has to stop it.
        os.setsid()
        system.set_name("capsule-worker")
        system.unblock_signals()
        descriptors.sever([*given, *spec["sandbox"].descriptors])
        _reseed()
        replace_main()
        gc.enable()
        worker(spec, *given)
    except BaseException:  # noqa: BLE001 (this process ends here, whatever it was)
        os.write(given.stderr, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(EXIT_FAILED)


def prepare() -> None:
    """In the zygote, when all is imported: find where numpy keeps the state of its global generator."""
    global _key  # noqa: PLW0603  # one for each zygote
    if "numpy.random" not in sys.modules:
        return
    _set_state(key := os.urandom(4 * _MERSENNE_WORDS))
    with suppress(AttributeError):  # of a numpy before 1.24, or of a generator that is not its own
        place = sys.modules["numpy.random"].get_bit_generator().ctypes.state_address
        if ctypes.string_at(place, len(key)) == key:
            _key = place


def _reseed() -> None:
    """The generator of numpy is the same in all children; `random`, uuid, secrets and ssl see to themselves."""
    if "numpy.random" not in sys.modules:
        return
    key = os.urandom(4 * _MERSENNE_WORDS)
    if _key:
        ctypes.memmove(_key, key, len(key))  # to ask numpy touches seventy pages of the zygote's
    else:
        _set_state(key)


def _set_state(key: bytes) -> None:
    """The whole state at once, of numbers that are all used up: `seed` would compute it."""
    words = sys.modules["numpy"].frombuffer(key, "u4")
    random = sys.modules["numpy.random"]
    try:
        random.set_state(("MT19937", words, _MERSENNE_WORDS, 0, 0.0))
    except ValueError:  # a module has put another kind in its place
        generator = random.get_bit_generator()
        generator.state = type(generator)().state


def replace_main() -> None:
    """Give the worker an empty `__main__`: processes that multiprocessing spawns would import the zygote's again."""
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = [""]

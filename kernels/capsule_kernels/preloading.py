"""What is imported before a worker serves: the code of workers, and the environment's modules.

A zygote does it once for all of its workers, which are forks of it. Where they are interpreters of their own, each does
it itself, and the environment's modules come last: see `spawned`.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from capsule_kernels.failures import ThreadsLeftError
from capsule_kernels.recognised import notebook_environment
from capsule_kernels.rehearsal import forget_classes

if TYPE_CHECKING:
    from types import ModuleType

    from capsule_kernels.newborn import WorkerMain

DEFAULT_WORKER = "capsule_kernels.worker:main"


def load(request: dict[str, Any]) -> WorkerMain:
    """In a zygote: the function that each worker calls. Raises what the modules raise, and ThreadsLeftError."""
    sys.path[0:0] = request.get("path", [])
    module, worker = load_worker(request)
    _refuse_threads(module.__name__)
    call(module, "rehearse_cells")
    for name in request.get("preload", []):  # now there is a shell, which some look for when they are imported
        importlib.import_module(name)
        _refuse_threads(name)
    faulthandler.cancel_dump_traceback_later()  # a child that armed it again would wait for its thread for ever
    call(module, "preloaded")
    forget_classes()
    call(module, "rehearse")
    return worker


def load_worker(request: dict[str, Any]) -> tuple[ModuleType, WorkerMain]:
    """The code of workers, without the environment's modules; what is in its `path` may not be trusted here."""
    notebook_environment(os.environ)  # before matplotlib looks at it
    name, _, function = request.get("worker", DEFAULT_WORKER).partition(":")
    module = importlib.import_module(name)
    call(module, "preload")
    worker: WorkerMain = getattr(module, function)
    return module, worker


def call(module: ModuleType, hook: str) -> None:
    """What the module of workers wants to be done then, if anything."""
    function = getattr(module, hook, None)
    if function is not None:
        function()


def _refuse_threads(module: str) -> None:
    """Locks that another thread holds at the moment of a fork stay locked in the child for ever."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise ThreadsLeftError(module, others)

"""What of a worker can be made before the fork: it knows neither its node nor its pipes yet, nor does it run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_kernels.about import CapsuleMagic
from capsule_kernels.cells import CellRunner
from capsule_kernels.checkpoints import Checkpoints
from capsule_kernels.executors import AsyncExecutor, ThreadedExecutor
from capsule_kernels.introspect import Introspection
from capsule_kernels.loops import SessionLoop

if TYPE_CHECKING:
    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.shell import ZMQInteractiveShell


class Prepared:
    """Made once for a zygote's workers, and used by each as its own: what is made there touches memory that is shared.

    Nothing in it may hold a descriptor, a thread, or what tells one process from another.
    """

    def __init__(self, shell: ZMQInteractiveShell, interrupts: Interrupts) -> None:
        self.shell = shell
        self.interrupts = interrupts
        self.loop = SessionLoop(opened=False)
        executors = ThreadedExecutor(self.loop), AsyncExecutor(self.loop, interrupts)
        self.runner = CellRunner(shell, interrupts, executors)
        self.introspection = Introspection(shell, interrupts.insist)
        self.checkpoints = Checkpoints(shell, interrupts)
        self.magic = CapsuleMagic(shell, self.introspection.namespace)

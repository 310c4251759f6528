"""The two ways to run the code of a cell, behind one interface."""

from capsule_kernels.executors.base import Executor, Piece, evaluate
from capsule_kernels.executors.native_async import AsyncExecutor
from capsule_kernels.executors.threaded import ThreadedExecutor

__all__ = ["AsyncExecutor", "Executor", "Piece", "ThreadedExecutor", "evaluate"]

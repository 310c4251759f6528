"""cloudpickle, loaded when a session is first saved or restored, and loaded from where the environment has it.

Not by its name: a file `cloudpickle.py` beside the user's code would be found first, and what stands in `sys.modules`
may be anything. Checkpoints name the functions of the copy, so it has a name that nobody else uses.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

NAME = "capsule_kernels._cloudpickle"

_place: list[str] = []


def locate() -> None:
    """Find out where it is, before user code can say where modules are to be looked for."""
    spec = PathFinder.find_spec("cloudpickle")
    if spec is not None and spec.submodule_search_locations:
        _place[:] = [f"{spec.submodule_search_locations[0]}/cloudpickle.py"]


@cache
def cloudpickle() -> Any:
    """The module. Raises ImportError where the environment does not have it."""
    spec = spec_from_file_location(NAME, _place[0]) if _place else None
    if spec is None or spec.loader is None:
        raise ImportError("the environment has no package cloudpickle")
    module = sys.modules[NAME] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[NAME]
        raise
    return module


def cloudpickle_version() -> str:
    """Its version, `""` if nobody knows."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cloudpickle")
    except PackageNotFoundError:
        return ""

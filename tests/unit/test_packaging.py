"""The distribution holds every package of the tree, each under its own name."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ["protocol", "pool", "bridge", "kernels", "bench"]
STUBS = "caps-stubs"
"""What type checkers are told of a module that only sessions have."""


def setuptools_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return table


def packages_below(folder: Path, base: Path) -> set[str]:
    """The import names of all packages in `folder` and below; `base` is what stands on the path."""
    return {".".join(init.parent.relative_to(base).parts) for init in folder.rglob("__init__.py")}


def packages_of_the_tree() -> set[str]:
    found = packages_below(ROOT / "capsule", ROOT) | {STUBS}
    for room in ROOMS:
        found |= packages_below(ROOT / room / f"capsule_{room}", ROOT / room)
    return found


def test_every_package_of_the_tree_is_listed_and_no_other() -> None:
    assert sorted(setuptools_table()["packages"]) == sorted(packages_of_the_tree())


def test_every_top_level_package_outside_the_root_has_its_folder() -> None:
    mapped = setuptools_table()["package-dir"]
    outside = {name for name in setuptools_table()["packages"] if "." not in name and name != "capsule"}
    assert set(mapped) == outside
    for name, folder in mapped.items():
        assert (ROOT / folder / ("__init__.pyi" if name == STUBS else "__init__.py")).is_file(), name


def test_no_folder_with_modules_lacks_an_init() -> None:
    """Setuptools would leave such a folder out, and only the installed wheel would show it."""
    for folder in ["capsule", *(f"{room}/capsule_{room}" for room in ROOMS)]:
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), module


@pytest.mark.parametrize("name", [name for name in setuptools_table()["packages"] if name != STUBS])
def test_a_package_comes_from_this_tree(name: str) -> None:
    origin = importlib.import_module(name).__file__
    assert origin is not None
    assert Path(origin).is_relative_to(ROOT)


def test_every_top_level_package_says_that_it_is_typed() -> None:
    for name in packages_of_the_tree():
        if "." not in name and name != STUBS:  # which is types and nothing else
            folder = setuptools_table()["package-dir"].get(name, name)
            assert (ROOT / folder / "py.typed").is_file(), name

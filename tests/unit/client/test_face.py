"""The root of the package: few names, loaded when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import capsule


def test_the_root_has_few_names() -> None:
    assert 12 <= len(capsule.__all__) <= 25
    assert set(capsule.__all__) <= set(dir(capsule))


@pytest.mark.parametrize("name", capsule.__all__)
def test_every_name_can_be_had(name: str) -> None:
    assert getattr(capsule, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        capsule.nothing  # noqa: B018 - reading it is the test


def test_importing_the_root_loads_no_part_of_it() -> None:
    code = "import sys, capsule; print(*sorted(name for name in sys.modules if name.split('.')[0] in NAMES))"
    names = "NAMES = ['capsule', 'capsule_protocol', 'pydantic', 'zmq', 'anyio', 'asyncio']\n"
    done = subprocess.run([sys.executable, "-c", names + code], capture_output=True, text=True, check=True)
    assert done.stdout == "capsule\n"

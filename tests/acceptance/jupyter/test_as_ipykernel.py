"""A front end sees the same as of ipykernel, message by message, but for what `cells.DIFFERENT` names."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.jupyter import cells, support
from tests.acceptance.jupyter.recorder import Recorder, recording

if TYPE_CHECKING:
    from collections.abc import Iterator

THEIRS = "ipykernel"


@pytest.fixture(scope="module")
def kernels(home: support.Home) -> Iterator[tuple[Recorder, Recorder]]:
    """ipykernel's and ours, each in a directory of its own, which are told apart by one letter."""
    install_theirs(home)
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}  # it looks for it
    (home.root / "t").mkdir()
    (home.root / "o").mkdir()
    with (
        support.managed(THEIRS, cwd=str(home.root / "t"), env=variables) as theirs,
        support.managed(support.PROVISIONER, cwd=str(home.root / "o")) as ours,
        recording(theirs, {str(home.root / "t"): "HERE"}) as first,
        recording(ours, {str(home.root / "o"): "HERE"}) as second,
    ):
        yield first, second


def install_theirs(home: support.Home) -> None:
    place = home.root / "data" / "kernels" / THEIRS
    place.mkdir(parents=True)
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    provisioner = {"kernel_provisioner": {"provisioner_name": "local-provisioner"}}
    spec = {"argv": arguments, "display_name": THEIRS, "language": "python", "metadata": provisioner}
    (place / "kernel.json").write_text(json.dumps(spec))


def lines(told: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A message a line, for a difference that can be read."""
    return [f"{request}: {json.dumps(message, default=repr)}" for request in sorted(told) for message in told[request]]


@pytest.mark.parametrize("name", cells.ALIKE)
def test_a_front_end_sees_the_same(kernels: tuple[Recorder, Recorder], name: str) -> None:
    theirs, ours = (lines(kernel.record(cells.ALIKE[name])) for kernel in kernels)
    assert ours == theirs


@pytest.mark.parametrize("name", cells.DIFFERENT)
def test_what_is_said_to_differ_differs(kernels: tuple[Recorder, Recorder], name: str) -> None:
    asks, difference = cells.DIFFERENT[name]
    theirs, ours = (lines(kernel.record(asks)) for kernel in kernels)
    assert ours != theirs, f"this is no difference any more: {name} {difference}"

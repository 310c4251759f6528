"""Kernels that cannot start, because a port that was chosen for them is taken, are told from those that are slow."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from traitlets.config import Config

from capsule_bench.execute_ipykernel import Kernel, PortTakenError, first_reply
from capsule_bench.jupyter_kernels import MOST_REPEATED, tried

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("name", ["shell_port", "iopub_port", "control_port"])
def test_a_kernel_whose_port_is_taken_is_not_waited_for(taken: int, name: str) -> None:
    running = Kernel(Config({"KernelManager": {"cache_ports": False, name: taken}}))
    try:
        with pytest.raises(PortTakenError):
            first_reply(running)
    finally:
        running.close()


def test_a_kernel_that_replies_is_waited_for() -> None:
    running = Kernel()
    try:
        first_reply(running)
    finally:
        running.close()


def test_tries_without_a_figure_are_repeated_and_counted() -> None:
    figures = iter([1.0, None, 2.0, None, 3.0])
    assert tried(lambda: next(figures), 3) == ([1.0, 2.0, 3.0], 2)


def test_tries_are_not_repeated_for_ever() -> None:
    figures = iter([1.0, *[None] * (MOST_REPEATED + 1)])
    with pytest.raises(PortTakenError, match=f"{MOST_REPEATED + 1} tries"):
        tried(lambda: next(figures), 2)

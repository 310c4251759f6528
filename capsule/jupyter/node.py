"""The small node of a user that the first kernel starts, and that ends when there has been none for a while."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import capsule.jupyter.kernel  # noqa: F401 - now, so that the first kernel does not wait for it
from capsule.config import NodeConfig
from capsule.node.front.service import Service
from capsule.settings.loading import read
from capsule.settings.service import StoreConfig
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from capsule.node.front.front import Front

IDLE = 60.0
"""Seconds without a kernel after which the node ends."""


def main() -> int:
    """Serve until nobody needs it. The descriptor `--ready` is told when kernels can be asked for."""
    parser = argparse.ArgumentParser(prog="capsule.jupyter.node")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--ready", type=int, required=True)
    parser.add_argument("--config", default=None)
    parser.add_argument("--idle", type=float, default=float(os.environ.get("CAPSULE_KERNELS_IDLE", IDLE)))
    given = parser.parse_args()
    if os.fork():  # nobody has to wait for it, or to be its parent
        os._exit(0)
    os.setsid()

    def tell(_front: Front) -> None:
        os.write(given.ready, b"1")
        os.close(given.ready)

    try:
        _wait_for_predecessor(given.directory)
        asyncio.run(Service(_config(given.config, given.directory), idle=given.idle).run(tell))
    except CapsuleError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


def _config(file: str | None, directory: Path) -> NodeConfig:
    """What the file says of environments; a kernel's state ends with it, so nothing is written down."""
    config = read(file).config if file is not None else NodeConfig()
    serve = config.serve.model_copy(update={"directory": directory, "listen": (), "http": None, "linger": 0.0})
    return config.model_copy(update={"serve": serve, "store": StoreConfig(durability="none")})


def _wait_for_predecessor(directory: Path) -> None:
    """A node that is about to end may not have left the place yet."""
    lock = os.open(directory / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main())

"""A private place for Jupyter and for this user's nodes, and what the tests ask of kernels in it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from jupyter_client.manager import KernelManager, start_new_kernel
from jupyter_client.provisioning.factory import KernelProvisionerFactory

from capsule.jupyter import kernelspecs
from capsule.jupyter.lease import SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.session import Session

LONG = 60.0
PROVISIONER, SHIM, PLAIN = "capsule", "capsule-shim", "python3"
"""Kernels by how they start: our provisioner, our stand-in, and plain Python by the default provisioner."""
ROUTES = (PROVISIONER, SHIM, PLAIN)


class Home:
    """Directories of Jupyter's and of ours, with our kernels installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "r"
        self.runtime.mkdir(mode=0o700)
        self.variables = {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_DATA_DIR": str(root / "data"),
            "JUPYTER_RUNTIME_DIR": str(root / "files"),
            "JUPYTER_CONFIG_DIR": str(root / "config"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "JUPYTER_DEFAULT_PROVISIONER_NAME": "capsule",
            "IPYTHONDIR": str(root / "ipython"),
        }

    def install(self) -> None:
        """Our kernel, and the same one for those who start a process."""
        made = kernelspecs.install(user=True)
        spec = json.loads(Path(made.directory, "kernel.json").read_text())
        spec["metadata"]["kernel_provisioner"] = {"provisioner_name": "local-provisioner", "config": {}}
        shim = Path(made.directory).with_name(SHIM)
        shim.mkdir()
        (shim / "kernel.json").write_text(json.dumps(spec))

    def nodes(self) -> list[int]:
        """The processes of nodes that take kernels here."""
        found = []
        for path in self.runtime.glob(f"capsule/*/{SOCKET}"):
            with suppress(ConnectionRefusedError, FileNotFoundError):  # it is about to end
                found.append(peer_of(path))
        return found

    def end_nodes(self) -> None:
        """End them, as a user would."""
        for pid in self.nodes():
            watching = os.pidfd_open(pid)
            signal.pidfd_send_signal(watching, signal.SIGTERM)
            assert select.select([watching], [], [], LONG)[0], f"node {pid} does not end"
            os.close(watching)
        for path in self.runtime.glob("capsule/*/node.lock"):  # one that ends by itself does not listen any more
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)


@contextmanager
def home() -> Iterator[Home]:
    """A home in which everything that this process starts lives; its nodes have ended, and left nothing, at the end."""
    root = Path(tempfile.mkdtemp(prefix="j-"))
    made = Home(root)
    before = {name: os.environ.get(name) for name in made.variables}
    os.environ.update(made.variables)
    KernelProvisionerFactory.clear_instance()  # it keeps what the variables said when it was made
    try:
        made.install()
        yield made
        made.end_nodes()
        logs = {path: path.read_text() for path in made.runtime.glob("capsule/*/node.log")}
        left = {path.name for path in made.runtime.glob("capsule/*/*")}
        assert left <= {"node.lock", "node.log", "start.lock"}, logs
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        KernelProvisionerFactory.clear_instance()
        shutil.rmtree(root)


@contextmanager
def kernel(name: str) -> Iterator[tuple[Any, Any]]:
    """A new kernel that is ready: its manager and a client."""
    manager, client = start_new_kernel(kernel_name=name, startup_timeout=LONG)
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def peer_of(path: Path) -> int:
    """The process that listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        pid, _, _ = struct.unpack("iII", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def drain(client: Any, request: str) -> list[dict[str, Any]]:
    """What everybody is told of a request, without its first `busy` and its last `idle`."""
    told: list[dict[str, Any]] = []
    while True:
        message = client.get_iopub_msg(timeout=LONG)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "status":
            if message["content"]["execution_state"] == "idle":
                return told
            continue
        told.append(message)


def run(client: Any, code: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run code: the content of the reply, and what was told meanwhile."""
    request = client.execute(code, **options)
    return reply_to(client, request), drain(client, request)


def reply_to(client: Any, request: str) -> dict[str, Any]:
    """The content of the reply to a request on the shell channel."""
    while True:
        message = client.get_shell_msg(timeout=LONG)
        if message["parent_header"].get("msg_id") == request:
            content: dict[str, Any] = message["content"]
            return content


def wait_until_taken(client: BlockingKernelClient) -> None:
    """All that was sent on the shell channel is with the node: a request for no subshell is refused at once."""
    request = client.session.msg("kernel_info_request")
    request["header"]["subshell_id"] = "none"
    client.shell_channel.send(request)
    assert "there is no subshell" in reply_to(client, request["header"]["msg_id"])["evalue"]


def text_of(told: list[dict[str, Any]], stream: str = "stdout") -> str:
    """The text of a stream."""
    return "".join(
        message["content"]["text"]
        for message in told
        if message["msg_type"] == "stream" and message["content"]["name"] == stream
    )


def gone(processes: list[psutil.Process]) -> bool:
    """Whether they end soon."""
    return not psutil.wait_procs(processes, timeout=LONG)[1]


@contextmanager
def connected(manager: KernelManager, session: Session | None = None) -> Iterator[BlockingKernelClient]:
    """A client, who is the manager's own unless he has a session of his own."""
    client = manager.client() if session is None else manager.client(session=session)
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LONG)
        yield client
    finally:
        client.stop_channels()


@contextmanager
def managed(name: str, **options: Any) -> Iterator[KernelManager]:
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(**options)
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)

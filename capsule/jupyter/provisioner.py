"""The kernel provisioner `capsule`: for everything that starts kernels by jupyter_client."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode

from capsule.jupyter.lease import Lease, environment, open_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_client.connect import KernelConnectionInfo

SOON = 2.0
"""Seconds that a kernel has to end when it was asked to, before the manager takes other measures."""
_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_LAUNCHERS = frozenset({"ipykernel_launcher", "ipykernel"})
_PLAIN = frozenset({"python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info)})
"""Names that mean the interpreter of whoever starts the kernel."""


class CapsuleProvisioner(LocalProvisioner):
    """A kernel is a session of a node, and this object's connection to the node is what keeps it alive.

    Kernels that are no Python, as they come when this is the default provisioner, are started as ever.
    """

    environment = Unicode("default", help="The environment of the session.").tag(config=True)
    directory = Unicode("", help="The directory of the node; without it, this user's own, which is started.").tag(
        config=True
    )
    config_file = Unicode("", help="The configuration of the node that is started.").tag(config=True)

    _lease: Lease | None = None
    _ours = True

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel, or one whose end nobody has waited for."""
        return self._lease is not None and self.pid is not None if self._ours else bool(super().has_process)

    async def poll(self) -> int | None:
        """None while the kernel lives, else its exit code."""
        if not self._ours:
            code: int | None = await super().poll()
            return code
        return 0 if self._lease is None or self.pid is None else self._lease.poll()

    async def wait(self) -> int | None:
        """Wait for the end of the kernel; answers its exit code."""
        if not self._ours:
            code: int | None = await super().wait()
            return code
        code = await self._ended()
        self.pid = None
        return code

    async def send_signal(self, signum: int) -> None:
        """Have the kernel act on a signal; nothing if it is gone."""
        if not self._ours:
            await super().send_signal(signum)
        elif self._lease is not None:
            self._lease.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel with all its processes."""
        if self._ours:
            await self.send_signal(signal.SIGKILL)
            await self._ended_soon()
        else:
            await super().kill(restart)

    async def terminate(self, restart: bool = False) -> None:
        """As `kill`: there is nothing that a kernel of ours could do about it."""
        if self._ours:
            await self.send_signal(signal.SIGTERM)
            await self._ended_soon()
        else:
            await super().terminate(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Give the kernel up, unless it is about to be started again: then its sockets wait for that."""
        if not self._ours:
            await super().cleanup(restart)
        elif not restart:
            self._hang_up()

    async def shutdown_requested(self, restart: bool = False) -> None:  # noqa: ARG002 - as above
        """Wait for the end of the kernel, if it comes soon."""
        if self._ours:
            await self._ended_soon()

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """The command that would start the kernel, with the variables of its environment."""
        self._ours = _is_ours(self.kernel_spec)
        if not self._ours:
            launch: dict[str, Any] = await super().pre_launch(**kwargs)
            return launch
        kwargs.pop("transport_encryption", None)
        extra = kwargs.pop("extra_arguments", [])
        command = [*self.kernel_spec.argv, *extra] if self.parent is None else self.parent.format_kernel_cmd(extra)
        # Not that of our base class, which chooses ports that somebody else may have when the kernel binds them.
        return await super(LocalProvisioner, self).pre_launch(cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Have a node start the kernel; it listens when this answers. Raises LeaseError."""
        if not self._ours:
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = str(kwargs.get("cwd") or os.getcwd())  # noqa: PTH109 - text, as our base class has it
        request = {
            "name": self.kernel_id or "",
            "environment": self.environment,
            "cwd": os.path.abspath(self.cwd),  # noqa: PTH100 - as above
            "env": environment(kwargs["env"]),
            "arguments": [one for one in cmd if one.startswith("--") and "=" in one],
            "connection": self._wanted(),
        }
        await _aside(lambda: self._launch(_interpreter(cmd), request))
        assert self._lease is not None
        self.pid = self._lease.pid
        given: Any = self._lease.connection | {"key": self._lease.connection["key"].encode()}
        self.connection_info = given
        return self.connection_info

    # --- inside ---

    async def _ended_soon(self) -> None:
        """Wait here, as the manager looks every 100 ms only."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON):
                await self._ended()

    async def _ended(self) -> int:
        while (code := await self.poll()) is None:
            assert self._lease is not None
            await _readable(self._lease.fileno())
        return code

    def _launch(self, python: str, request: dict[str, Any]) -> None:
        lease = self._lease
        if lease is not None and _same_ports(request["connection"], lease.connection):
            try:
                lease.start(request)
            except OSError:  # the node has gone: another one takes its place, with the same ports
                self._hang_up()
            else:
                return
        self._hang_up()
        self._lease = open_kernel(python, request, self.directory, self.config_file)

    def _wanted(self) -> dict[str, Any]:
        """Where the manager wants it to listen, if it says so."""
        manager = self.parent
        if manager is None:
            return {}
        # A manager that starts anew what has died forgets which ports it was given; clients have not forgotten them.
        had = {} if self._lease is None else self._lease.connection
        wanted = {name: getattr(manager, name) or had.get(name, 0) for name in _PORTS}
        return {**wanted, "transport": manager.transport, "ip": manager.ip, "key": manager.session.key.decode()}

    def _hang_up(self) -> None:
        lease, self._lease, self.pid = self._lease, None, None
        if lease is not None:
            lease.close()


def _is_ours(spec: Any) -> bool:
    """Whether a kernelspec is of ours, or one of plain Python."""
    if not str(spec.language).lower().startswith("python"):
        return False
    return "capsule" in spec.metadata or any(word in _LAUNCHERS for word in spec.argv)


def _interpreter(command: list[str]) -> str:
    return sys.executable if command[0] in _PLAIN else command[0]


def _same_ports(wanted: dict[str, Any], given: dict[str, Any]) -> bool:
    return all(wanted.get(name) == given[name] for name in _PORTS)


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read. Each call may be in another event loop: managers do that."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    loop.add_reader(descriptor, tell)
    try:
        await told
    finally:
        loop.remove_reader(descriptor)


async def _aside(work: Callable[[], None]) -> None:
    """Do it in a thread, and wait for that by a pipe.

    The loop's own threads, and its way to be woken by one, do not work in a process that was forked with the loop.
    """
    failures: list[BaseException] = []
    ended, ending = os.pipe()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)
        finally:
            os.close(ending)

    try:
        Thread(target=run, name="capsule-launch", daemon=True).start()
        await _readable(ended)
    finally:
        os.close(ended)
    for failure in failures:
        raise failure

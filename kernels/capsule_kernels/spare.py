"""A box that is there before it is asked for: one of a new worker's two forks, and its namespaces, are then behind it.

It belongs to the zygote, has no worker, no directory and none of the zygote's connections, and waits for the spec of a
worker. It ends when the zygote does. Whoever finds it dead forks a box as if there had been none.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from capsule_kernels import box, descriptors, newborn, system

if TYPE_CHECKING:
    from capsule_kernels.sandbox.groups import Group
    from capsule_kernels.sandbox.levels import Sandbox


class Spare:
    """One such box. Raises OSError if it cannot be forked."""

    def __init__(self, sandbox: Sandbox, worker: newborn.WorkerMain) -> None:
        self.group = sandbox.groups.take()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self.pid = sandbox.fork()
                if self.pid == 0:
                    _wait(theirs, sandbox, self.group, worker)
        except BaseException:
            self._connection.close()
            self.group.remove()
            raise

    def use(self, spec: dict[str, Any], given: descriptors.BoxDescriptors, lock: int) -> bool:
        """Have it be the box of this worker; false if it has died. The next one needs another spare."""
        with self._connection:
            try:
                descriptors.deliver(self._connection, spec, [*given, lock])
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Nobody needs it: it ends by itself."""
        self._connection.close()


def _wait(connection: socket.socket, sandbox: Sandbox, group: Group, worker: newborn.WorkerMain) -> NoReturn:
    """In the fork: all that a box does before it knows its worker, and then be that worker's box."""
    try:
        box.settle(sandbox)
        descriptors.sever([connection.fileno(), *sandbox.descriptors])
        system.set_name("capsule-spare")
        spec, given = descriptors.receive(connection)
        connection.close()
        if spec is not None:
            spec |= {"sandbox": sandbox, "group": group}
            box.run(spec, descriptors.BoxDescriptors(*given[:-1]), worker, given[-1])
    finally:
        os._exit(newborn.EXIT_FAILED)

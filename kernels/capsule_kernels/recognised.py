"""What other libraries look at to see that they run in a notebook."""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from capsule_kernels.publisher import Publisher


_ZMQSHELL = "ipykernel.zmqshell"


def notebook_config() -> Config:
    """The configuration of a shell in which tqdm and pandas recognise a kernel.

    They look for the section `IPKernelApp`; rich looks at the name of the shell's class.
    """
    config = Config()
    config.IPKernelApp.parent_appname = "capsule"
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.Completer.use_jedi = False
    return config


def notebook_environment(environment: MutableMapping[str, str]) -> None:
    """Choose the backends of a notebook, unless the user has chosen."""
    environment.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # What plotly chooses where ipykernel is. Else it puts all of its JavaScript (5 MB) into each notebook, to be sure.
    environment.setdefault("PLOTLY_RENDERER", "plotly_mimetype")
    environment.setdefault("TERM", "xterm-color")
    environment.setdefault("CLICOLOR", "1")
    environment.setdefault("PAGER", "cat")
    environment.setdefault("GIT_PAGER", "cat")


class _LazyZmqshell(types.ModuleType):
    """Stands for `ipykernel.zmqshell` in `sys.modules`, where tqdm looks for it; whoever uses it gets the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_ZMQSHELL) is self:
            del sys.modules[_ZMQSHELL]
        return getattr(importlib.import_module(_ZMQSHELL), name)


def show_zmqshell() -> None:
    """Make the module known without the quarter of a second that its import costs."""
    sys.modules.setdefault(_ZMQSHELL, _LazyZmqshell(_ZMQSHELL))


class KernelFace:
    """The part of `get_ipython().kernel` that libraries use: the shell, comms, and who asked for what runs."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.implementation = "capsule"
        self.pid = os.getpid()
        self.comm_manager: Any = None
        self._publisher: Publisher | None = None

    def serve(self, publisher: Publisher, comm_manager: Any) -> None:
        """It is a session's from now on."""
        self._publisher, self.comm_manager = publisher, comm_manager

    def get_parent(self, channel: str | None = None) -> dict[str, Any]:  # noqa: ARG002  # Jupyter's signature
        """The request that the calling code belongs to, named by the execution's id: widgets capture output by it."""
        if self._publisher is None:
            return {}
        header = {"msg_id": self._publisher.current(), "session": self._publisher.session}
        return {"header": header, "msg_id": header["msg_id"], "metadata": {}, "content": {}}

    @property
    def _parent_header(self) -> dict[str, Any]:
        """What `get_parent` was once called."""
        return self.get_parent()

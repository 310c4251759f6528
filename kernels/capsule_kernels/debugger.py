"""ipykernel's debugger for the cells of a session: its requests, without its sockets. Imported when it is needed."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import IPython
from IPython.core.inputtransformer2 import leading_empty_lines

from capsule_kernels.dap import Adapter, exempt


def _folder_of(module: str) -> str:
    """Where a module is that debugpy has brought along."""
    found = sys.modules.get(module)
    return str(Path(str(found.__file__)).parent) if found is not None else ""


_VALIDATION = "PYDEVD_DISABLE_FILE_VALIDATION"
_validation = os.environ.setdefault(_VALIDATION, "1")  # frozen modules are those that nobody debugs
try:
    import ipykernel.compiler
    import ipykernel.debugger
finally:
    if _validation == "1":
        os.environ.pop(_VALIDATION, None)

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.shell import ZMQInteractiveShell

AVAILABLE: bool = ipykernel.debugger._is_debugpy_available  # noqa: SLF001  # it says nowhere else whether it is
HOST = "127.0.0.1"
FOLDER = _folder_of("pydevd")
"""Where the code is that traces code, and in which it stands at a breakpoint."""
STATE_RUN, NO_STEP = 1, -1
"""Of a thread of pydevd's: it does not stand, nor go step by step."""
_GO_ON = frozenset({"continue", "next", "stepIn", "stepOut"})
_OWN = str(Path(__file__).parent)
_INTERNAL = (f"{_OWN}/**", f"{Path(IPython.__file__).parent}/**")


class _Client:
    """What the debugger asks of ipykernel's client of debugpy."""

    def __init__(self, on_event: Callable[[dict[str, Any]], object]) -> None:
        self._on_event = on_event
        self._address = (HOST, 0)
        self._adapter: Adapter | None = None

    def connect(self) -> None:
        """Have debugpy listen, once in the life of the process, and connect to it."""
        if not self._address[1]:
            import debugpy  # noqa: T100  # it is asked for

            host, port = debugpy.listen(self._address)  # noqa: T100
            self._address = (str(host), int(port))
        self._adapter = Adapter(self._address, self._on_event)

    def get_host_port(self) -> tuple[str, int]:
        """Where debugpy listens."""
        return self._address

    def disconnect_tcp_socket(self) -> None:
        """Hang up."""
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None

    async def send_dap_request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request; it is waited for, but nothing else of this thread is."""
        assert self._adapter is not None
        return self._adapter.attach(message) if message["command"] == "attach" else self._adapter.request(message)


class CellDebugger(ipykernel.debugger.Debugger):  # type: ignore[misc]  # ipykernel publishes no types
    """Serves one session. All is called on one thread, which waits for debugpy; events come on another one."""

    def __init__(self, shell: ZMQInteractiveShell, folder: str, on_event: Callable[[dict[str, Any]], object]) -> None:
        # Its own `__init__` wants sockets.
        self.log = logging.getLogger("capsule.debugger")
        self._shell = shell
        self._folder = folder
        self.event_callback = on_event
        self.debugpy_client = _Client(self._handle_message)
        self.just_my_code = False
        self.is_started = False
        self.filter_internal_frames = True
        self.kernel_modules = _INTERNAL
        self.breakpoint_list: dict[str, Any] = {}
        self.stopped_threads: set[int] = set()
        self._removed_cleanup: dict[int, Any] = {}
        self.static_debug_handlers = self._handlers([*self.static_debug_msg_types, "variables"])
        self.started_debug_handlers = self._handlers(self.started_debug_msg_types)
        self.variable_explorer = ipykernel.debugger.VariableExplorer()
        # Its files of cells go with the session.
        ipykernel.compiler.get_tmp_directory = ipykernel.debugger.get_tmp_directory = lambda: folder

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The response to a request, which is never an exception."""
        asked = {"arguments": {}, **request}
        coroutine = self.process_request(asked)
        try:
            coroutine.send(None)  # nothing in it waits for an event loop
        except StopIteration as end:
            response: dict[str, Any] = end.value
        except Exception as error:  # noqa: BLE001  # a request may have any form, and debugpy may end at any time
            return _refused(request, f"{type(error).__name__}: {error}")
        else:
            coroutine.close()
            return _refused(request, "it waits for what does not come")
        if not response:
            return _refused(request, "the debugger has not been started: send `initialize` and `attach` first")
        return {**response, "type": "response", "request_seq": request["seq"], "command": request["command"]}

    @staticmethod
    def let_go() -> None:
        """On the main thread, between any two steps of it: where it stands, an exception is about to be raised.

        From Python 3.12 on that does not end the tracing, and the next line that is reached would stop it again.
        """
        info = getattr(threading.current_thread(), "additional_info", None)
        if info is not None:
            info.pydev_original_step_cmd = info.pydev_step_cmd = NO_STEP
            info.pydev_step_stop = None
            info.pydev_state = STATE_RUN

    @staticmethod
    def trace_again() -> None:
        """On the main thread: an exception that was raised in the tracing has ended it."""
        from _pydevd_bundle.pydevd_thread_lifecycle import resume_threads

        resume_threads("*")  # it still believes that this one stands at the breakpoint
        tracer = sys.modules["pydevd"].get_global_debugger()
        if tracer is not None:
            tracer.enable_tracing(tracer.trace_dispatch)

    def start(self) -> bool:
        """From here on cells have files, by which breakpoints find them."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)  # noqa: PTH103  # as in the engine
        for thread in threading.enumerate():
            if thread.name.startswith("capsule-"):
                exempt(thread)
        self.debugpy_client.connect()
        self._shell.compile.name_of_file = ipykernel.compiler.get_file_name
        transforms = self._shell.input_transformer_manager.cleanup_transforms
        if leading_empty_lines in transforms:  # lines are counted from the beginning of the cell
            index = transforms.index(leading_empty_lines)
            self._removed_cleanup[index] = transforms.pop(index)
        return True

    def stop(self) -> None:
        """Cells are as before."""
        self._shell.compile.name_of_file = None
        super().stop()

    def accept_variable(self, variable_name: str) -> bool:
        """Whether it is one of the user's."""
        return bool(super().accept_variable(variable_name)) and variable_name not in self._shell.own_names

    async def attach(self, message: dict[str, Any]) -> dict[str, Any]:
        """As ipykernel's, but for its log files, and for the child processes that code starts."""
        message["arguments"] = {"subProcess": False, **message["arguments"]}
        response: dict[str, Any] = await super().attach(message)
        return response

    async def stackTrace(self, message: dict[str, Any]) -> dict[str, Any]:  # noqa: N802  # the protocol's word
        """The frames of user code: those below it are the worker's."""
        response: dict[str, Any] = await super().stackTrace(message)
        frames = response.get("body", {}).get("stackFrames", [])
        for index, frame in enumerate(frames):
            if str(frame.get("source", {}).get("path", "")).startswith(_OWN):
                response["body"] |= {"stackFrames": frames[:index], "totalFrames": index}
                break
        return response

    async def _forward_message(self, msg: dict[str, Any]) -> dict[str, Any]:
        if msg["command"] == "attach":
            msg["arguments"]["logToFile"] = False
        return await self.debugpy_client.send_dap_request(msg)

    def _handle_message(self, msg: dict[str, Any]) -> None:
        """On the thread that reads: which threads are stopped is known before a client asks."""
        if msg["type"] == "event" and msg["event"] == "stopped":
            self.stopped_threads.add(msg.get("body", {}).get("threadId", 0))
        elif msg.get("event") == "continued" or (msg.get("command") in _GO_ON and msg.get("success")):
            self.stopped_threads.clear()  # debugpy stops and continues all of them together
        if msg["type"] == "event":
            self.event_callback(msg)

    def _handlers(self, names: list[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def _refused(request: dict[str, Any], message: str) -> dict[str, Any]:
    return {
        "type": "response",
        "request_seq": request["seq"],
        "command": request["command"],
        "success": False,
        "message": message,
    }

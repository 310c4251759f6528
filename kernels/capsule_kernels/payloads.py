"""What IPython asks of its front end (next input, pager, end), for the verdicts of executions that want to know it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from IPython.core.error import TryNext
from IPython.core.payload import PayloadManager

from capsule_kernels.display import plain

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell


class _Here(threading.local):
    """Of each thread; the main thread's are IPython's own."""

    def __init__(self) -> None:
        self.wanted = False
        self.manager = PayloadManager()


class Payloads:
    """Those of one shell. Where nobody has asked for them, texts are printed and `exit` ends the cell."""

    def __init__(self, shell: ZMQInteractiveShell) -> None:
        self._shell = shell
        self._here = _Here()

    @property
    def _manager(self) -> Any:
        main = threading.current_thread() is threading.main_thread()
        return self._shell.payload_manager if main else self._here.manager

    @property
    def wanted(self) -> bool:
        """Whether somebody has asked for those of the cell that the calling thread runs."""
        return self._here.wanted

    def begin(self, *, wanted: bool) -> None:
        """A cell starts."""
        self._here.wanted = wanted
        if wanted:
            self._manager.clear_payload()

    def take(self) -> list[dict[str, Any]]:
        """What the cell has left, without what no message can carry."""
        self._here.wanted = False
        found = [payload for each in self._manager.read_payload() if isinstance(payload := _plain(each), dict)]
        self._manager.clear_payload()
        return found

    def offer(self, payload: dict[str, Any], *, single: bool = True) -> bool:
        """Leave it to the front end, in the place of an earlier one of its kind if it is `single`; False: it is not
        wanted.
        """
        if self.wanted:
            self._manager.write_payload(payload, single=single)
        return self.wanted

    def page(self, _shell: Any, text: Any, start: int = 0, **_more: Any) -> None:
        """A hook of IPython's pager: raises TryNext if the text is to be printed."""
        data = text if isinstance(text, dict) else {"text/plain": text}
        if not self.offer({"source": "page", "data": data, "start": max(0, start)}):
            raise TryNext


def _plain(payload: Any) -> Any:
    """None for what ends in no plain value: it may hold itself, or objects of the user's."""
    try:
        return plain(payload)
    except BaseException:  # noqa: BLE001  # the cell is over, and they answer as they like
        return None

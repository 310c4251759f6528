"""Comms: the channel of ipywidgets and other front-end objects, over the link."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from capsule_kernels.display import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_kernels.publisher import Publisher


_KINDS = {"open": "comm_open", "message": "comm_msg", "close": "comm_close"}
_prepared: tuple[type[Any], Any] | None = None


class UnknownCommError(LookupError):
    """The code has no comm of this id, or no target of this name."""


def prepare() -> tuple[type[Any], Any]:
    """Put our class of comms, and a manager of them, into the `comm` package; once, and before any fork.

    Making a class touches much memory that workers then share, and what an environment imports may register targets.
    """
    global _prepared  # noqa: PLW0603  # the comm package is imported late
    if _prepared is not None:
        return _prepared
    import comm
    from comm.base_comm import BaseComm, CommManager

    class LinkComm(BaseComm):  # type: ignore[misc]  # the comm package is untyped
        """A comm whose messages are events of the execution that sends them."""

        publisher: Publisher | None = None

        def publish_msg(
            self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
        ) -> None:
            """Send `comm_open`, `comm_msg` or `comm_close`, in its place among what the code writes.

            Raises TypeError for what no such message can carry.
            """
            if msg_type not in _KINDS.values():
                raise TypeError(f"a comm sends {', '.join(_KINDS.values())}, not {msg_type!r}")
            body = {"comm": _text("comm_id", self.comm_id), "data": _map("data", data)}
            body["metadata"] = _map("metadata", metadata)
            if msg_type == "comm_open":
                body["target"] = _text("target_name", keys.get("target_name", ""))
            raw = tuple(bytes(buffer) for buffer in buffers or ())
            if self.publisher is not None:  # else it is in the zygote, and nobody hears it
                self.publisher.publish(msg_type, body, buffers=raw)

    manager = CommManager()
    manager.targets.update(comm.get_comm_manager().targets)  # of what was imported before
    comm.create_comm = LinkComm
    comm.get_comm_manager = lambda: manager
    _prepared = LinkComm, manager
    return _prepared


class Comms:
    """Those of one session: what the client says on them, as turns of the session, and which there are."""

    def __init__(self, publisher: Publisher) -> None:
        self._kind, self.manager = prepare()
        self._publisher = publisher
        self._actions = {"open": self._open, "message": self._hear, "close": self._close}

    def install(self) -> None:
        """Make the `comm` package speak through the link."""
        self._kind.publisher = self._publisher

    def hear(self, said: dict[str, Any], buffers: Sequence[Any]) -> None:
        """Have the code act on what the client said. Raises what the code raises, and UnknownCommError."""
        content = {"comm_id": said["comm"], "target_name": said.get("target", ""), "data": said.get("data", {})}
        header = self._header(said["action"])
        message = {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": {},
            "content": content,
            "metadata": said.get("metadata", {}),
            "buffers": [memoryview(buffer) for buffer in buffers],
        }
        self._actions[said["action"]](said["comm"], message)

    def _header(self, action: str) -> dict[str, Any]:
        """As of a message of Jupyter's, which is called as the execution is that acts on it."""
        return {
            "msg_id": self._publisher.current(),
            "msg_type": _KINDS[action],
            "session": self._publisher.session,
            "username": "",
            "date": datetime.datetime.now(datetime.UTC),
            "version": "5.5",
        }

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to `comm_info`."""
        wanted = body.get("target")
        targets = {name: getattr(comm, "target_name", None) for name, comm in self.manager.comms.items()}
        told = {name: target for name, target in targets.items() if isinstance(name, str) and isinstance(target, str)}
        return {"comms": {name: target for name, target in told.items() if wanted in (None, target)}}

    def _open(self, name: str, message: dict[str, Any]) -> None:
        import comm

        target = message["content"]["target_name"]
        opened = comm.create_comm(comm_id=name, primary=False, target_name=target)
        self.manager.register_comm(opened)
        try:
            if target not in self.manager.targets:
                raise UnknownCommError(f"no code has registered the target {target!r}")  # noqa: TRY301  # it is closed too
            self.manager.targets[target](opened, message)
        except BaseException:
            opened.close()  # so that the client's end goes too
            raise

    def _hear(self, name: str, message: dict[str, Any]) -> None:
        self._known(name).handle_msg(message)

    def _close(self, name: str, message: dict[str, Any]) -> None:
        closed = self._known(name)
        closed._closed = True  # noqa: SLF001  # as the manager of the package does
        del self.manager.comms[name]
        closed.handle_close(message)

    def _known(self, name: str) -> Any:
        try:
            return self.manager.comms[name]
        except KeyError:
            raise UnknownCommError(f"the session has no comm {name!r}") from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} of a comm is text, not {type(value).__name__}")
    return str.__str__(value)


def _map(name: str, value: object) -> dict[str, Any]:
    made = plain(value or {})
    if not isinstance(made, dict):
        raise TypeError(f"{name} of a comm's message is a dict, not {type(value).__name__}")
    return made

"""Comms: the channel of ipywidgets and other front-end objects, over the link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule_kernels.display import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.publisher import Publisher
    from capsule_protocol.envelope import Envelope


_comm_class: type[Any] | None = None


def prepare() -> None:
    """Make the class of comms; once, before any fork: making a class touches much memory that workers then share."""
    global _comm_class  # noqa: PLW0603  # the comm package is imported late
    from comm.base_comm import BaseComm

    class LinkComm(BaseComm):  # type: ignore[misc]  # the comm package is untyped
        """A comm whose messages are events of the execution that sends them."""

        publisher: Publisher

        def publish_msg(
            self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
        ) -> None:
            """Send `comm_open`, `comm_msg` or `comm_close`."""
            body = {"comm": self.comm_id, "data": plain(data or {}), "metadata": plain(metadata or {})}
            if msg_type == "comm_open":
                body["target"] = keys.get("target_name", "")
            raw = tuple(bytes(buffer) for buffer in buffers or ())
            self.publisher.publish(msg_type, body, fenced=False, buffers=raw)  # no place among the output

    _comm_class = LinkComm


def install(publisher: Publisher) -> Callable[[Envelope], None]:
    """Make the `comm` package speak through the link; the answer handles the client's messages."""
    import comm
    from comm.base_comm import CommManager

    if _comm_class is None:
        prepare()
    assert _comm_class is not None
    _comm_class.publisher = publisher
    manager = CommManager()
    comm.create_comm = _comm_class
    comm.get_comm_manager = lambda: manager

    def handle(envelope: Envelope) -> None:
        body = envelope.body
        content = {"comm_id": body.get("comm"), "target_name": body.get("target"), "data": body.get("data", {})}
        message = {"content": content, "metadata": body.get("metadata", {}), "buffers": list(envelope.buffers)}
        getattr(manager, envelope.type)(None, None, message)

    return handle

"""Comms: the channel of ipywidgets and other front-end objects, over the link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule_kernels.display import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.publisher import Publisher
    from capsule_protocol.envelope import Envelope


def install(publisher: Publisher) -> Callable[[Envelope], None]:
    """Make the `comm` package speak through the link; the answer handles the client's messages."""
    import comm
    from comm.base_comm import BaseComm, CommManager

    class LinkComm(BaseComm):  # type: ignore[misc]  # the comm package is untyped
        """A comm whose messages are events of the execution that sends them."""

        def publish_msg(
            self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
        ) -> None:
            """Send `comm_open`, `comm_msg` or `comm_close`."""
            body = {"comm": self.comm_id, "data": plain(data or {}), "metadata": plain(metadata or {})}
            if msg_type == "comm_open":
                body["target"] = keys.get("target_name", "")
            if buffers:
                body["buffers"] = [bytes(buffer) for buffer in buffers]
            publisher.publish(msg_type, body, fenced=False)  # comms have no place among the output

    manager = CommManager()
    comm.create_comm = LinkComm
    comm.get_comm_manager = lambda: manager

    def handle(envelope: Envelope) -> None:
        body = envelope.body
        content = {"comm_id": body.get("comm"), "target_name": body.get("target"), "data": body.get("data", {})}
        message = {"content": content, "metadata": body.get("metadata", {}), "buffers": list(envelope.buffers)}
        getattr(manager, envelope.type)(None, None, message)

    return handle

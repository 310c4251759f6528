"""The node's door for clients: sockets, one peer for each connection, and the sessions that outlive connections."""

from capsule.node.front.front import Front

__all__ = ["Front"]

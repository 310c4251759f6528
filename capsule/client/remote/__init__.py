"""The client's half of the client link: a node in another process looks like one in this process."""

from capsule.client.remote.node import RemoteNode

__all__ = ["RemoteNode"]

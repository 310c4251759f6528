"""The provider `http`: requests over HTTP to where a grant allows it, by addresses that the node has checked."""

from capsule.providers.http.provider import HttpProvider, provider

__all__ = ["HttpProvider", "provider"]

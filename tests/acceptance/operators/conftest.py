"""The service of these tests: one for a module, and one that a test may end."""

from __future__ import annotations

from tests.acceptance.serve.conftest import place, remote, served

__all__ = ["place", "remote", "served"]

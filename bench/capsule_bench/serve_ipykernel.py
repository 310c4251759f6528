"""Contender `ipykernel` of area `serve`: it is a process of its own in any case."""

from __future__ import annotations

from capsule_bench.execute_ipykernel import bulk_output, one_plus_one

__all__ = ["bulk_output", "one_plus_one"]

"""Measures Capsule against what else runs Python for other programs: the `capsule-bench` command."""

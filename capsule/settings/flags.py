"""The flags of the commands that take configuration, and the options that they set."""

from __future__ import annotations

FLAGS: dict[str, tuple[str, ...]] = {
    "--directory": ("serve", "directory"),
    "--listen": ("serve", "listen"),
    "--max-clients": ("serve", "max_clients"),
    "--max-sessions": ("max_sessions",),
    "--drain-timeout": ("serve", "drain_timeout"),
    "--insecure": ("serve", "insecure"),
}
"""Few: what changes from one start to the next. All else is for the file."""

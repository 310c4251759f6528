"""The one error of the sandbox."""

from __future__ import annotations


class SandboxError(Exception):
    """This machine cannot give the level that was asked for: what is missing, and how it can be had."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

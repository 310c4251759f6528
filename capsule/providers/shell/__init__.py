"""Running programs for sessions: those that a grant names, with arguments that fit its forms."""

from capsule.providers.shell.provider import provider

__all__ = ["provider"]

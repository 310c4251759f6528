"""Files of a session, which its node moves to and from clients; the directory belongs to code that nobody trusts."""

from capsule.node.transfers.attempts import Download, Upload
from capsule.node.transfers.files import SessionFiles

__all__ = ["Download", "SessionFiles", "Upload"]

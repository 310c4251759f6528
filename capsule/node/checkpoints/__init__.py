"""What a session has, saved to a file and brought back. The node signs the file and never looks into the values."""

from capsule.node.checkpoints.session import LoadRequest, SaveRequest, SessionCheckpoints

__all__ = ["LoadRequest", "SaveRequest", "SessionCheckpoints"]

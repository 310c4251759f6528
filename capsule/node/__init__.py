"""Part of Capsule."""

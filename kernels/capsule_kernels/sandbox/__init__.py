"""What keeps the code of a session to its own process and its own scratch directory: see `levels`."""

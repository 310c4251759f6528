"""The command `capsule`: one module per noun, each a thin layer over the public client."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """What the program `capsule` calls."""
    try:
        from capsule.cli import entry  # late: a Ctrl-C during the imports ends as one during anything else

        entry.main()
    except KeyboardInterrupt:
        sys.exit(130)

"""The command `capsule`: one module per noun, each a thin layer over the public client."""

import sys
from typing import NoReturn

from capsule.platforms import check_client
from capsule_protocol.errors import NodeError


def main() -> NoReturn:
    """What the program `capsule` calls."""
    try:
        check_client()
        from capsule.cli import entry  # late: a Ctrl-C during the imports ends as one during anything else

        entry.main()
    except NodeError as error:
        sys.exit(f"capsule: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

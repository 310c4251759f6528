"""The command `capsule`: one module per noun, each a thin layer over the public client."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """What the program `capsule` calls."""
    try:
        _refuse_without_posix()
        from capsule.cli import entry  # late: a Ctrl-C during the imports ends as one during anything else

        entry.main()
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse_without_posix() -> None:
    from capsule.platforms import check_client
    from capsule_protocol.errors import NodeError

    try:
        check_client()
    except NodeError as error:
        print(f"capsule: {error}", file=sys.stderr)
        sys.exit(3)  # `exits.Exit.FAILED`, of a module that cannot be loaded there

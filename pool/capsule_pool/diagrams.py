"""The tables of states as diagrams: `python -m capsule_pool.diagrams PAGE` draws them anew in a Markdown page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from capsule_pool.states import TABLES


def mermaid(name: str) -> str:
    """The diagram of a table; what leads back to the same state is left out."""
    table = TABLES[name]
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))}"]
    for state, steps in table.items():
        for following in dict.fromkeys(steps.values()):
            events = [event.replace("_", " ") for event, target in steps.items() if target == following]
            if following != state:
                lines.append(f"    {state} --> {following}: {', '.join(events)}")
    lines += [f"    {state} --> [*]" for state, steps in table.items() if not steps]
    return "\n".join(lines)


def write_into(text: str) -> str:
    """A page whose diagrams behind `<!-- states: NAME -->` are those of the tables."""
    block = re.compile(r"(<!-- states: (\w+) -->\n)```mermaid\n.*?```", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}```mermaid\n{mermaid(found[2])}\n```", text)


def main() -> None:
    """Correct the page that the command line names."""
    page = Path(sys.argv[1])
    page.write_text(write_into(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

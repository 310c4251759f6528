"""The reference page says of the command line what click knows of it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from capsule import events
from capsule.cli.entry import cli
from capsule.cli.exits import Exit
from capsule.cli.show import as_json

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text("utf-8")


def section(title: str) -> str:
    """The text under a heading."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, str]:
    """The first two columns of a table, without its head."""
    cells = re.findall(r"^\| (.*?) \|(?: (.*) \|)?", text, re.MULTILINE)
    return dict(cells[1:])


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """All commands by name, those of groups in it too."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{name} ") if isinstance(command, click.Group) else {prefix + name: command}
    return found


COMMANDS = commands(cli)


def test_every_command_has_its_options() -> None:
    titles = re.findall(r"^## Options of `capsule (.*)`$", PAGE, re.MULTILINE)
    assert sorted(titles) == sorted(name for name, command in COMMANDS.items() if command.params)
    assert {"run", "repl", "serve", "wait-ready", "config check"} <= set(COMMANDS)
    operators = {"sessions", "attach", "interrupt", "kill", "pool", "drain", "doctor"}
    assert (
        set(cli.commands)
        == {
            "run",
            "repl",
            "serve",
            "wait-ready",
            "config",
            "keys",
            "jupyter",
            "kernels",
            "store",
            "save",
            "restore",
            "promises",
            "approvals",
            "policy",
            "audit",
        }
        | operators
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_on_the_page(name: str) -> None:
    assert re.search(rf"^capsule {name}\b", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(name for name, command in COMMANDS.items() if command.params))
def test_the_options_of_a_command(name: str) -> None:
    known = {}
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            (flag,) = option.opts
            known[f"`{flag}`" if option.is_flag else f"`{flag} {option.metavar}`"] = option.help
    assert set(rows(section(f"Options of `capsule {name}`"))) == set(known)
    assert all(known.values())


def test_the_exit_codes() -> None:
    assert [int(code) for code in rows(section("Exit codes"))] == sorted(Exit)


def test_the_events_of_json() -> None:
    documented = rows(section("`--json`"))
    kinds = {}
    for event in events.Event.__subclasses__():
        own = [field.name for field in fields(event) if field.name not in {"execution_id", "sequence"}]
        kinds[re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower()] = own
    assert {kind.strip("`") for kind in documented} == {*kinds, "failure"}
    for kind, names in kinds.items():
        assert [name for name in names if f"`{name}`" not in documented[f"`{kind}`"]] == []
    assert as_json(events.ClearOutput("x", 1, wait=True)) == {
        "event": "clear_output",
        "execution_id": "x",
        "sequence": 1,
        "wait": True,
    }

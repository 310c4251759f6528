"""The options of the commands that take configuration: `--config`, and the flags that come before all else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from capsule.settings.flags import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from capsule.settings.sources import Flag

_HELP = {
    "--directory": (
        "DIR",
        "Directory of the socket, yours alone (default: $XDG_RUNTIME_DIR/capsule, or /tmp/capsule-UID).",
    ),
    "--listen": ("ADDRESS", "Address beside that of the user. Repeatable."),
    "--max-clients": ("NUMBER", "Connections at once."),
    "--max-sessions": ("NUMBER", "Open sessions at once."),
    "--drain-timeout": ("SECONDS", "What running code and transfers get when the service is told to end."),
    "--insecure": ("", "Let tcp:// addresses of the loopback be without encryption, for anybody on this machine."),
}


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, passed as `config`."""
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="Configuration of the node (default: what CAPSULE_CONFIG names, or capsule.toml here).",
    )(command)


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and the flags; `given` makes of their values what `settings.loading.read` takes."""
    for name in reversed(FLAGS):
        metavar, text = _HELP[name]
        kind: dict[str, Any] = {"metavar": metavar, "multiple": name == "--listen"}
        if name == "--insecure":
            kind = {"is_flag": True, "default": None}
        command = click.option(name, _parameter(name), help=text, **kind)(command)
    return config_option(command)


def given(values: Mapping[str, Any]) -> list[Flag]:
    """The flags among the parameters of a command. What they may be, the model says."""
    from capsule.settings.sources import Flag

    flags = [Flag(name, path, values[_parameter(name)]) for name, path in FLAGS.items()]
    return [flag for flag in flags if flag.value not in {None, ()}]


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")

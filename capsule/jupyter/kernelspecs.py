"""Kernelspecs: what makes notebooks and IDEs offer an environment of Capsule as a kernel."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

from capsule.jupyter import lease
from capsule.jupyter.translate import PROTOCOL
from capsule_protocol.errors import ArgumentError

_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,99}")
"""A name is that of a directory, and the one of that name is replaced: `..` must be none."""
_LOGOS = ("logo-svg.svg", "logo-64x64.png", "logo-32x32.png")


@dataclass(frozen=True, slots=True)
class Kernelspec:
    """One that is installed: its name, how front ends show it, its environment, and its directory.

    `hidden`: front ends find another one of this name first, which may be no kernel of ours.
    """

    name: str
    display_name: str
    environment: str
    directory: str
    hidden: bool = False


def install(
    environment: str = "default",
    *,
    name: str | None = None,
    display_name: str | None = None,
    user: bool = False,
    config: str | None = None,
    directory: str | None = None,
) -> Kernelspec:
    """Install one for this interpreter: in its own environment, or for the `user`; it replaces one of the same name.

    `directory` is that of a node which runs, `config` the configuration of the one that is started else. Raises
    ArgumentError, and OSError where the files cannot be written.
    """
    if name is None:
        name = "capsule" if environment == "default" else f"capsule-{environment}".lower()
    if not _NAME.fullmatch(name):
        allowed = "1 to 100 small letters, digits, underscores, dots and hyphens, with neither of the last two in front"
        raise ArgumentError("name", f"{name[:110]!r} is no name for a kernel", allowed=allowed)
    if directory is None:
        check_environment(environment, config)
    title = display_name or (f"Python {sys.version_info[0]} (Capsule)" + _suffix(environment))
    where = {"directory": _absolute(directory), "config": _absolute(config)}
    with tempfile.TemporaryDirectory() as made:
        text = json.dumps(_spec(environment, title, where), indent=1)
        Path(made, "kernel.json").write_text(text + "\n", encoding="utf-8")
        for logo in _LOGOS:
            shutil.copy(Path(__file__).with_name(logo), made)
        Path(made).chmod(0o755)
        prefix = None if user else sys.prefix
        placed = KernelSpecManager().install_kernel_spec(made, name, user=user, prefix=prefix)
    return Kernelspec(name, title, environment, placed)


def installed() -> list[Kernelspec]:
    """Those of Capsule, by name; of several that have one name, that which front ends find comes first."""
    found: list[Kernelspec] = []
    seen: set[str] = set()
    for place in KernelSpecManager().kernel_dirs:
        there = _kernels_in(Path(place))
        for name, (directory, spec) in there.items():
            ours = spec.get("metadata", {}).get("capsule")
            if isinstance(ours, dict):
                environment, title = str(ours.get("environment", "default")), str(spec.get("display_name", name))
                found.append(Kernelspec(name, title, environment, directory, hidden=name in seen))
        seen |= there.keys()
    return sorted(found, key=lambda one: one.name)


def _kernels_in(place: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """The directory and the description of each kernel in a folder of kernels, by name."""
    found = {}
    for file in sorted(place.glob("*/kernel.json")):
        try:
            spec = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):  # somebody else's, and broken
            continue
        if isinstance(spec, dict) and isinstance(spec.get("metadata", {}), dict):
            found[file.parent.name.lower()] = str(file.parent), spec
    return found


def remove(name: str) -> Kernelspec:
    """Remove one; of several that have this name, that which front ends find.

    Raises ArgumentError if there is none of this name that is Capsule's.
    """
    known = installed()
    for one in known:
        if one.name == name:
            shutil.rmtree(one.directory)
            return one
    raise ArgumentError("name", f"{name!r} is no kernel of Capsule's", allowed=[one.name for one in known])


def check_environment(environment: str, config: str | None) -> None:
    """Raises ArgumentError `environment_unknown` if no such environment is in the configuration."""
    from capsule.config import NodeConfig
    from capsule.settings.loading import read

    known = (read(config).config if config is not None else NodeConfig()).environments
    if environment != "default" and environment not in known:
        message = f"{environment!r} is in no configuration that was given"
        raise ArgumentError("environment", message, allowed=sorted({"default", *known}), code="environment_unknown")


def _spec(environment: str, title: str, where: dict[str, str]) -> dict[str, Any]:
    argv = [sys.executable, "-S", "-P", lease.__file__, "-f", "{connection_file}", "--environment", environment]
    for name, value in where.items():
        argv += [f"--{name}", value] if value else []
    config = {"environment": environment, "directory": where["directory"], "config_file": where["config"]}
    return {
        "argv": argv,
        "display_name": title,
        "language": "python",
        "interrupt_mode": "signal",
        "kernel_protocol_version": PROTOCOL,
        "metadata": {
            "capsule": {"environment": environment},
            "debugger": True,
            "kernel_provisioner": {"provisioner_name": "capsule", "config": config},
        },
    }


def _suffix(environment: str) -> str:
    return "" if environment == "default" else f": {environment}"


def _absolute(path: str | None) -> str:
    return str(Path(path).absolute()) if path else ""

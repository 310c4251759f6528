"""IPython's configuration for one session: arguments as on its command line, `--Class.trait=value`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from traitlets.config import Config
from traitlets.config.loader import DeferredConfigString

from capsule_kernels.verdicts import summed_up
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from traitlets.config import Configurable

    from capsule_kernels.shell import ZMQInteractiveShell

_FORM = re.compile(r"--(?P<owner>[A-Za-z_]\w*)\.(?P<trait>[a-z_]\w*)=(?P<value>.*)", re.DOTALL)
_BACKEND = "InlineBackend"
_IN_MEMORY = ":memory:"
_HISTORY_FILE = ("HistoryManager", "hist_file")


def configure(shell: ZMQInteractiveShell, arguments: Collection[str]) -> None:
    """Apply them to the shell and its parts. Raises ArgumentError for what IPython does not have, and OSError."""
    owners = _owners(shell)
    config: Any = Config()
    for argument in arguments:
        owner, trait, value = _parts(argument, owners)
        if (owner, trait) == _HISTORY_FILE:
            if value != _IN_MEMORY:
                shell.past.open(value)
        elif owner != _HISTORY_FILE[0] or trait != "enabled":  # whether there is a file says that
            config[owner][trait] = DeferredConfigString(value)
    try:
        for part in _configurables(shell):
            if part is shell or not config.keys().isdisjoint(kind.__name__ for kind in type(part).__mro__):
                part.update_config(config)
    except Exception as error:  # of a trait, or of what IPython does with its value
        named = ", ".join(dict.fromkeys(argument.partition("=")[0] for argument in arguments))
        text = f"{summed_up(error)} (of {named})"
        raise ArgumentError("ipython", text, allowed="values that the traits take") from error


def _configurables(shell: ZMQInteractiveShell) -> Iterator[Configurable]:
    """The shell and its parts, and the formatters, which are parts of one of them."""
    yield from (shell, *shell.configurables, *shell.display_formatter.formatters.values())


def _owners(shell: ZMQInteractiveShell) -> dict[str, type[Configurable]]:
    """The kinds of what can be configured, by the names of their classes and of the classes that these are made of."""
    parts = [type(part) for part in _configurables(shell)]
    return {kind.__name__: part for part in parts for kind in part.__mro__ if hasattr(kind, "class_traits")}


def _backend() -> type[Configurable]:
    """That of figures: made when the first one is drawn, it asks the shell then. To import it imports matplotlib."""
    from matplotlib_inline.config import InlineBackend

    kind: type[Configurable] = InlineBackend
    return kind


def _parts(argument: str, owners: dict[str, type[Configurable]]) -> tuple[str, str, str]:
    found = _FORM.fullmatch(argument)
    if found is None:
        raise ArgumentError("ipython", f"has {argument!r:.80}", allowed="--Class.trait=value")
    owner, trait, value = found.groups()
    if owner not in owners and owner != _BACKEND:
        raise ArgumentError("ipython", f"names the class {owner}", allowed=", ".join(sorted([*owners, _BACKEND])))
    kind = owners[owner] if owner in owners else _backend()
    if trait not in kind.class_traits(config=True):
        raise ArgumentError("ipython", f"names {owner}.{trait}", allowed=f"a configurable trait of {owner}")
    return owner, trait, value

"""An attack as data: what runs, in which ways, and where the same code must succeed."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

from tests.acceptance.sandbox.attacks import toolbox
from tests.acceptance.sandbox.rig import control_groups

Level: TypeAlias = Literal["none", "landlock", "namespaces"]
User: TypeAlias = Literal["root", "ordinary"]
Way: TypeAlias = Literal["main", "thread", "child", "program"]
Control: TypeAlias = Literal["any", "root", "never", "held"]
OWN: User = "root" if os.geteuid() == 0 else "ordinary"
"""As whom the tests run."""

ALONE: tuple[Way, ...] = ("main",)
EVERY_WAY: tuple[Way, ...] = ("main", "thread", "child", "program")
SANDBOXED: tuple[Level, ...] = ("landlock", "namespaces")


@dataclass(frozen=True)
class Attack:
    """One attack. Without a level to hold it at it proves nothing, and without a control neither.

    `control`: where nothing forbids it, it succeeds for whom; `held`: it is held there too. `why` tells of an attack
    that has no control. `residual`
    names what does not promise to hold it: a level, or a level and a user (`landlock/ordinary`), and `risk` tells why.
    `grouped`: where this user can make control groups they hold it at both levels.
    `options` are those of its session, where it is sandboxed. `dies`: the session may end by it, which is one way to be
    held. `after` is asked in the siege, when the code has ended, what came of it; `beside`, while it runs.
    """

    function: Callable[[Any], Any]
    ways: tuple[Way, ...] = ALONE
    control: Control = "any"
    why: str = ""
    residual: tuple[str, ...] = ()
    risk: str = ""
    grouped: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    dies: bool = False
    timeout: float = 30.0
    after: Callable[..., Any] | None = None
    beside: Callable[..., Any] | None = None

    @property
    def kind(self) -> str:
        """The module that it is in."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def name(self) -> str:
        """What it is called, in words."""
        return self.function.__name__.replace("_", " ")

    def code(self, prey: dict[str, Any]) -> str:
        """The cell that makes it."""
        source = source_of(self.function)
        run = f"report(SOURCE, {self.function.__name__!r}, Prey(**PREY), {list(self.ways)!r})"
        return f"PREY = {prey!r}\nSOURCE = {source!r}\nexec(compile(SOURCE, 'attack', 'exec'), globals())\n{run}"

    def promised(self, level: Level, user: User) -> bool:
        """Whether this level promises to hold it for this user."""
        if level == "none":
            return self.control == "held"
        if self.grouped and user == OWN and control_groups():
            return True
        return not {level, f"{level}/{user}"} & set(self.residual)

    def succeeds(self, user: User) -> bool:
        """Whether the control of this user has to get through."""
        return self.control == "any" or (self.control == "root" and user == "root")


class Collection:
    """The attacks of a module, in order; it is the decorator too."""

    def __init__(self) -> None:
        self.attacks: list[Attack] = []

    def __call__(self, **known: Any) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Make an attack of the function."""

        def add(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            no_control = known.get("control") in {"never", "held"}
            assert known.get("why") or not no_control, f"{function.__name__} does not say why"
            assert known.get("risk") or not known.get("residual"), f"{function.__name__} does not say why"
            options = tuple(known.pop("options", {}).items())
            self.attacks.append(Attack(function, options=options, **known))
            return function

        return add


@cache
def source_of(function: Callable[[Any], Any]) -> str:
    """All that an attack needs: the toolbox, and its own module without the other attacks."""
    module = inspect.getmodule(function)
    assert module is not None
    text = inspect.getsource(module)
    lines = text.splitlines()
    taken = [node for node in ast.parse(text).body if _goes_along(node, function.__name__)]
    parts = ["\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in taken]
    return "\n".join([inspect.getsource(toolbox), *(part for part in parts if "Collection(" not in part)])


def _goes_along(node: ast.stmt, name: str) -> bool:
    """What the siege does itself stays here, and so do its imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return not node.decorator_list or node.name == name
    if isinstance(node, ast.Import):
        return node.names[0].name not in {"asyncio", "psutil"}
    if isinstance(node, ast.ImportFrom):
        return not f"{node.module}".startswith(("__future__", "tests.", "capsule"))
    return isinstance(node, ast.Assign | ast.AnnAssign)

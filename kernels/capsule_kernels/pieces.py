"""The parts of a cell's syntax tree: statements that are run together, and expressions whose values are shown."""

from __future__ import annotations

import ast
import tokenize
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["exec", "eval", "single"]
"""Of code: statements, an expression whose value is shown, or statements that show the values within them."""


def split(body: list[ast.stmt], mode: str) -> Iterator[tuple[list[Any], Kind]]:
    """Runs of statements, and expressions whose value is shown."""
    if mode == "last_expr_or_assign" and body:
        body = [*body, *_target(body[-1])]
    shown_from = 0 if mode == "all" else len(body) - 1 if mode != "none" else len(body)
    within: Kind = "single" if mode in ("all", "last") else "exec"
    run: list[ast.stmt] = []
    kind: Kind = "exec"
    for number, node in enumerate(body):
        before, kind = kind, _kind(node, within) if number >= shown_from else "exec"
        if run and (kind != before or kind == "eval"):
            yield run, before
            run = []
        run.append(node)
    if run:
        yield run, kind


def _kind(node: ast.stmt, within: Kind) -> Kind:
    return "eval" if isinstance(node, ast.Expr) else within


def module(nodes: list[Any], kind: Kind, ignores: list[ast.TypeIgnore]) -> ast.mod:
    """What is compiled of one of them."""
    if kind == "eval":
        return ast.Expression(nodes[0].value)
    return ast.Interactive(nodes) if kind == "single" else ast.Module(nodes, ignores)


def _target(node: ast.stmt) -> list[ast.stmt]:
    """An expression that gives what an assignment to one name has assigned."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and isinstance(targets[0], ast.Name):
        value = ast.Expr(ast.Name(targets[0].id, ast.Load()))
        return [ast.fix_missing_locations(ast.copy_location(value, node))]
    return []


def ends_silently(source: str) -> bool:
    """Whether the last token is a semicolon, which hides the value."""
    if ";" not in source:
        return False
    skipped = (tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)
    try:
        tokens = [token for token in tokenize.generate_tokens(StringIO(source).readline) if token.type not in skipped]
    except (tokenize.TokenError, SyntaxError):
        return False
    return bool(tokens) and tokens[-1].string == ";"

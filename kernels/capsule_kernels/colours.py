"""Makes the colours of tracebacks cheap: most of the time until an interrupted cell has its verdict went there.

For each frame that it shows stack_data makes a lexer class, and for each traceback IPython has a style made and a
formatter for it. What Pygments then works out, some 20 ms of it, is each time the same.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import Any

import stack_data
from pygments.formatters.terminal256 import Terminal256Formatter
from pygments.lexer import RegexLexerMeta

KEPT = 8
"""Styles: a session uses one or two."""


def cheapen() -> None:
    """Have what is worked out once used again, where Pygments is built as it is known here. Call it once."""
    stack_data.style_with_executing_node = lru_cache(KEPT)(stack_data.style_with_executing_node)
    if hasattr(RegexLexerMeta, "process_tokendef"):
        _share_tokens()
    if hasattr(Terminal256Formatter, "_setup_styles"):
        _keep_colours()


def _share_tokens() -> None:
    """A lexer class that adds no tokens takes those of its parent as they are."""
    process: Any = RegexLexerMeta.process_tokendef

    @wraps(process)
    def shared(cls: Any, name: str, tokendefs: Any = None) -> Any:
        inherited = None
        if name == "" and "tokens" not in vars(cls) and len(cls.__bases__) == 1:
            inherited = vars(cls.__bases__[0]).get("_tokens")
        return process(cls, name, tokendefs) if inherited is None else inherited

    RegexLexerMeta.process_tokendef = shared


def _keep_colours() -> None:
    """A formatter takes the colours that another one of its style has looked for."""
    look_for: Any = Terminal256Formatter._setup_styles  # noqa: SLF001  # it is called whenever one is made
    known: dict[Any, tuple[dict[str, Any], dict[str, Any]]] = {}

    @wraps(look_for)
    def setup(self: Any) -> None:
        key = type(self), self.style, self.usebold, self.useunderline, self.useitalic
        if key in known:
            strings, matches = known[key]
            self.style_string.update(strings)
            self.best_match.update(matches)
            return
        look_for(self)
        if len(known) == KEPT:
            known.clear()
        known[key] = dict(self.style_string), dict(self.best_match)

    Terminal256Formatter._setup_styles = setup  # noqa: SLF001  # as above

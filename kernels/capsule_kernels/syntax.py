"""Which cells are plain Python: they can do without IPython's transformations, which cost more than a short cell."""

from __future__ import annotations

import builtins
import keyword
import re
from typing import TYPE_CHECKING

from IPython.core.autocall import IPyAutocall
from IPython.core.macro import Macro

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell

_SPECIAL = re.compile(r"[%!?]|\A\s|^[ \t]*[,;/]|^[ \t]*(?:>>>|\.\.\.)|^In \[", re.MULTILINE)
"""Source in which this finds nothing has no syntax of IPython's."""

_COMMAND = re.compile(r"(?P<word>[^\W\d][\w.*]*)[^\n]*\n?\Z")
"""A cell of one line, and the word that may be a command without `%` or brackets: IPython looks at no other cell."""

_BUILTINS = vars(builtins)
_KEYWORDS = frozenset(keyword.kwlist)


class Syntax:
    """That of one shell. What transforms cells when it is made is IPython's own."""

    def __init__(self, shell: ZMQInteractiveShell) -> None:
        self._shell = shell
        self._plain = self._counts()

    def is_plain(self, cell: str) -> bool:
        """Whether the transformations would leave this cell as it is."""
        return _SPECIAL.search(cell) is None and not self._is_command(cell) and not self._has_more()

    def _is_command(self, cell: str) -> bool:
        """Whether IPython may take the cell for a magic, an alias, a macro, or a call without brackets.

        Whether a name of the user's hides a magic, and so on, is then IPython's to tell.
        """
        shell = self._shell
        found = _COMMAND.match(cell)
        if found is None:
            return False
        if shell.autocall:
            return True
        word = found["word"]
        value = shell.user_ns.get(word)
        if value is not None:
            return isinstance(value, (Macro, IPyAutocall))
        if word in _BUILTINS or word in _KEYWORDS:  # which hide magics too
            return False
        return shell.automagic and shell.find_magic(word) is not None

    def _has_more(self) -> bool:
        """Whether the session added transformers of its own."""
        return bool(self._shell.input_transformers_post) or self._counts() != self._plain

    def _counts(self) -> tuple[int, ...]:
        manager, commands = self._shell.input_transformer_manager, self._shell.prefilter_manager
        return (
            len(manager.cleanup_transforms),
            len(manager.line_transforms),
            len(manager.token_transformers),
            len(commands.transformers),
            len(commands.checkers),
        )

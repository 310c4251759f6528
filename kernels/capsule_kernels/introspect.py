"""Completion, inspection, completeness, history, namespace: asked between cells, answered on the main thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from IPython.core.completer import provisionalcompleter

from capsule_kernels.completions import Found, described
from capsule_kernels.namespace import summary

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell

MATCHES = 1000
"""Completions in one answer at most; nobody reads more."""

_ATTRIBUTE = re.compile(r"\.\w*\Z")

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Introspection:
    """Answers questions about the session's code and values; offsets count Unicode code points."""

    def __init__(self, shell: ZMQInteractiveShell, insist: Callable[[], object]) -> None:
        """`insist` raises an interrupt again which IPython's completer has taken for an answer."""
        self._shell = shell
        self._insist = insist
        self._first_names = set(shell.user_ns) | set(shell.user_ns_hidden)

    def answers(self) -> dict[str, Answer]:
        """The handler of each type of request."""
        return {
            "complete": self.complete,
            "inspect": self.inspect,
            "is_complete": self.is_complete,
            "history": self._shell.past.answer,
            "namespace_summary": self.namespace,
        }

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Completions of the code at the cursor."""
        code, cursor = body["code"], body["cursor"]
        found = self._completions(code, cursor) or self._on_its_line(code, cursor)
        entries = described(code, found, self._shell.user_ns)
        start, end = (entries[0]["start"], entries[0]["end"]) if entries else (cursor, cursor)
        return {
            "matches": [entry["text"] for entry in entries],
            "start": start,
            "end": end,
            "metadata": {"_jupyter_types_experimental": entries},
        }

    def _completions(self, code: str, cursor: int) -> list[Found]:
        with provisionalcompleter():
            found = [
                Found(one.start, one.end, one.text, one.type or "", one.signature or "")
                for one in islice(self._shell.Completer.completions(code, cursor), MATCHES)
            ]
        self._insist()
        return found

    def _on_its_line(self, code: str, cursor: int) -> list[Found]:
        """Attributes by the cursor's line alone: in the body of a function or a class IPython finds none."""
        line = code[:cursor].rpartition("\n")[2].lstrip()
        start = cursor - len(line)
        if code.startswith("%%") or start == 0 or _ATTRIBUTE.search(line) is None:
            return []
        found = self._completions(line, len(line))
        return [one._replace(start=start + one.start, end=start + one.end) for one in found]

    def inspect(self, body: dict[str, Any]) -> dict[str, Any]:
        """The documentation of the name at the cursor."""
        from IPython.utils.tokenutil import token_at_cursor

        name = token_at_cursor(body["code"], body["cursor"])
        try:
            data = self._shell.object_inspect_mime(name, detail_level=body.get("detail", 0))
        except KeyError:
            return {"found": False, "data": {}, "metadata": {}}
        if not self._shell.enable_html_pager:  # as ipykernel: a front end shows it in the place of the text
            data.pop("text/html", None)
        return {"found": True, "data": data, "metadata": {}}

    def is_complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Whether the code can be run as it stands, and the indentation of the next line if not."""
        status, indent = self._shell.input_transformer_manager.check_complete(body["code"])
        return {"status": status, "indent": " " * (indent or 0)}

    def namespace(self, _body: dict[str, Any]) -> dict[str, Any]:
        """Names, types and sizes of the user's variables; never their data."""
        hidden = self._first_names | set(self._shell.user_ns_hidden)
        entries, truncated = summary(self._shell.user_ns, hidden)
        return {"entries": entries, "truncated": truncated}

"""Completion, inspection, completeness, history, namespace: asked between cells, answered on the main thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import provisionalcompleter

from capsule_kernels.namespace import summary

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell

MATCHES = 1000
"""Completions in one answer at most; nobody reads more."""

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Introspection:
    """Answers questions about the session's code and values; offsets count Unicode code points."""

    def __init__(self, shell: ZMQInteractiveShell) -> None:
        self._shell = shell
        self._first_names = set(shell.user_ns) | set(shell.user_ns_hidden)

    def answers(self) -> dict[str, Answer]:
        """The handler of each type of request."""
        return {
            "complete": self.complete,
            "inspect": self.inspect,
            "is_complete": self.is_complete,
            "history": self.history,
            "namespace_summary": self.namespace,
        }

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Completions of the code at the cursor."""
        code, cursor = body["code"], body["cursor"]
        with provisionalcompleter():
            found = []
            for completion in self._shell.Completer.completions(code, cursor):
                found.append(completion)
                if len(found) == MATCHES:
                    break
        start = min((item.start for item in found), default=cursor)
        end = max((item.end for item in found), default=cursor)
        matches = list(dict.fromkeys(code[start : item.start] + item.text + code[item.end : end] for item in found))
        kinds = [{"text": item.text, "type": item.type or "", "signature": item.signature or ""} for item in found]
        return {"matches": matches, "start": start, "end": end, "metadata": {"types": kinds}}

    def inspect(self, body: dict[str, Any]) -> dict[str, Any]:
        """The documentation of the name at the cursor."""
        from IPython.utils.tokenutil import token_at_cursor

        name = token_at_cursor(body["code"], body["cursor"])
        try:
            data = self._shell.object_inspect_mime(name, detail_level=body.get("detail", 0))
        except KeyError:
            return {"found": False, "data": {}, "metadata": {}}
        return {"found": True, "data": data, "metadata": {}}

    def is_complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Whether the code can be run as it stands, and the indentation of the next line if not."""
        status, indent = self._shell.input_transformer_manager.check_complete(body["code"])
        return {"status": status, "indent": " " * (indent or 0)}

    def history(self, body: dict[str, Any]) -> dict[str, Any]:
        """Inputs of this session: its tail, a range, or what fits a pattern."""
        raw, output, n = body.get("raw", True), body.get("output", False), body.get("n") or 10
        kind, manager = body.get("kind", "tail"), self._shell.history_manager
        if kind == "range":
            entries = list(manager.get_range(0, body.get("start") or 1, body.get("stop"), raw=raw, output=output))
        else:
            entries = list(manager.get_range(0, 1, None, raw=raw, output=output))
            entries = [entry for entry in entries if entry[2]]
            if kind == "search":
                entries = _matching(entries, body.get("pattern") or "*", unique=body.get("unique", False))
            entries = entries[-n:]
        return {"entries": [[session, line, _source(entry)] for session, line, entry in entries]}

    def namespace(self, _body: dict[str, Any]) -> dict[str, Any]:
        """Names, types and sizes of the user's variables; never their data."""
        hidden = self._first_names | set(self._shell.user_ns_hidden)
        entries, truncated = summary(self._shell.user_ns, hidden)
        return {"entries": entries, "truncated": truncated}


def _matching(entries: list[Any], pattern: str, *, unique: bool) -> list[Any]:
    from fnmatch import fnmatchcase

    found = [entry for entry in entries if fnmatchcase(str(_source(entry[2])), pattern)]
    if not unique:
        return found
    last = {str(_source(entry[2])): entry for entry in found}
    return [entry for entry in found if last[str(_source(entry[2]))] is entry]


def _source(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry

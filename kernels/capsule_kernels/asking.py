"""`capsule_ask`: a question of the code whose answer has a type, or has to come in time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from capsule_protocol.answers import MAX_SECONDS, Terms
from capsule_protocol.errors import ArgumentError
from capsule_protocol.json_schema import canonical

if TYPE_CHECKING:
    from capsule_kernels.stdin import Stdin


class Ask:
    """`capsule_ask(prompt, choices=…, schema=…, timeout=…)`."""

    def __init__(self, stdin: Stdin) -> None:
        self._stdin = stdin

    def __call__(
        self,
        prompt: object = "",
        *,
        choices: Sequence[Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Ask whoever may answer: the client, or at a service anybody who may settle the question's promise.

        The answer is one of `choices`, which are JSON values; or a JSON value that fits `schema`, a JSON Schema; with
        neither, a line of text. `timeout` is in seconds; None: as long as the session allows. Raises TimeoutError,
        EOFError if nobody can answer or says that there is no answer, InputCanceledError if the question is taken back,
        and ValueError for arguments that cannot be asked.
        """
        try:
            values = _values(choices)
            terms = Terms(_plain("choices", values), _plain("schema", _map(schema)))
            terms.check()
            question = {"prompt": str(prompt), "timeout": _seconds(timeout)}
        except ArgumentError as error:
            raise error.with_traceback(None) from None  # where it was found out is of no use to who calls this
        text = self._stdin.ask(question | {"choices": terms.choices, "json_schema": terms.schema})
        if not terms.typed:
            return text
        answer = json.loads(text)
        if values is None or terms.choices is None:
            return answer
        return values[[canonical(choice) for choice in terms.choices].index(canonical(answer))]


def _values(choices: object) -> list[Any] | None:
    if choices is None:
        return None
    if not isinstance(choices, Sequence) or isinstance(choices, str | bytes | bytearray):
        raise ArgumentError("choices", f"is {type(choices).__name__}", allowed="a list, or another sequence but text")
    return list(choices)


def _map(schema: object) -> dict[str, Any] | None:
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise ArgumentError("schema", f"is {type(schema).__name__}", allowed="a dict: a JSON Schema")
    return dict(schema)


def _plain(name: str, value: Any) -> Any:
    """As JSON has it, which is what whoever is asked sees."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(name, f"cannot be said in JSON: {error}") from None


def _seconds(timeout: object) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_SECONDS:
        raise ArgumentError("timeout", f"is {timeout!r:.80}", allowed=f"seconds: more than 0, at most {MAX_SECONDS}")
    return float(timeout)

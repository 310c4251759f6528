"""What is told of a promise, to those who may see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from capsule.broker import approvals
from capsule.node.asking import Answer
from capsule.node.durable.elsewhere import text_of
from capsule.node.durable.inquiries import unpack_question, written
from capsule_bridge import execution_promise
from capsule_bridge.rules import spans

if TYPE_CHECKING:
    from capsule_bridge import Promise

PROMPT_CHARACTERS = 1000
"""Of a prompt that is told in a list."""
KINDS = frozenset({"input", "execute", "approval"})
"""Promises that somebody may wait for, or settle."""


def summary(promise: Promise, now: int) -> dict[str, Any]:
    """What it is, and what is waited for, at a time of the clock of promises."""
    row: dict[str, Any] = {
        "id": promise.id,
        "kind": promise.kind,
        "state": promise.state,
        "session": promise.session,
        "execution": execution_promise(promise.id).removeprefix("exec:"),
        "owner": promise.principal,
        "created": promise.created_at / 1000,
        "timeout": None if promise.timeout_at is None else promise.timeout_at / 1000,
        "settled": None if promise.settled_at is None else promise.settled_at / 1000,
        **spans(promise, now),
    }
    if promise.kind == "input":
        question = unpack_question(promise)
        row |= {"prompt": question.prompt[:PROMPT_CHARACTERS], "password": question.password}
    elif promise.kind == approvals.KIND:
        row |= {"prompt": approvals.prompt(promise)[:PROMPT_CHARACTERS]}
    return row


def description(promise: Promise, now: int) -> dict[str, Any]:
    """All of it, with the answer."""
    row = summary(promise, now)
    if promise.kind == approvals.KIND:
        row |= {"value": approvals.describe(promise, now), "message": approvals.said(promise).get("reason", "")}
    elif promise.kind == "input":
        question = unpack_question(promise)
        row |= {"prompt": question.prompt, "choices": question.choices, "schema": question.schema}
        if promise.value:
            answer = written(promise)
            if isinstance(answer, Answer):
                typed = answer.value is not None and question.terms.typed
                row |= {"value": json.loads(answer.value or "") if typed else answer.value, "message": answer.message}
            elif answer is None:  # somebody else's, who settled it past the nodes
                shown = promise.state == "resolved" and not question.password
                row |= {"value": text_of(promise.value) if shown else None, "message": ""}
    return row

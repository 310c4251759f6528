"""Schemas of a provider that runs elsewhere: the node knows their fields, and the provider itself checks the values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import ConfigDict, Field, create_model

from capsule.broker.sdk import Descriptor, Limits, Operation, Schema, ScopeSchema
from capsule.broker.shapes import Shape

_OPEN = ConfigDict(extra="allow", frozen=True, strict=False, hide_input_in_errors=True)


class _Response(Schema):
    """Whatever the provider answers."""

    model_config = _OPEN


class _Scope(ScopeSchema):
    """Whatever a grant says; the provider checks it when the policy is loaded."""

    model_config = _OPEN


def told(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as it is told to the node."""
    operations = {
        name: {
            "summary": each.summary,
            "request": each.request.model_json_schema(),
            "response": each.response.model_json_schema(),
            "effects": each.effects,
            "takes_body": each.takes_body,
            "gives_body": each.gives_body,
            "returns": each.returns,
            "body_kind": each.body_kind,
            "limits": asdict(each.limits),
        }
        for name, each in descriptor.operations.items()
    }
    return {
        "name": descriptor.name,
        "version": descriptor.version,
        "sdk": descriptor.sdk,
        "needs": sorted(descriptor.needs),
        "operations": operations,
    }


def heard(told_: dict[str, Any]) -> Descriptor:
    """The descriptor that the node uses. Raises KeyError, TypeError or ValueError for what is none."""
    operations = {}
    for name, each in told_["operations"].items():
        request, response = each.pop("request"), each.pop("response")
        limits = Limits(**each.pop("limits"))
        operations[str(name)] = Operation(request=_request(request), response=_shown(response), limits=limits, **each)
    name, version, sdk = (str(told_[key]) for key in ("name", "version", "sdk"))
    return Descriptor(name, version, operations, _Scope, sdk, untrusted=True, needs=frozenset(told_["needs"]))


def _request(described: dict[str, Any]) -> type[Schema]:
    """A schema with these fields, which knows what in them is secret."""
    whole = Shape.of(described)
    fields: dict[str, Any] = {}
    for name in whole.names:
        shape = whole.field(name)
        default = ... if name in whole.required else shape.default
        fields[name] = (Annotated[Any, shape], Field(default))
    made = create_model("Request", __base__=Schema, **fields)
    return _describing(made, described)


def _shown(described: dict[str, Any]) -> type[Schema]:
    return _describing(create_model("Response", __base__=_Response), described)


def _describing(schema: type[Schema], described: dict[str, Any]) -> type[Schema]:
    """It is described as its provider does."""

    def model_json_schema(*_: Any, **__: Any) -> dict[str, Any]:
        return described

    setattr(schema, "model_json_schema", staticmethod(model_json_schema))  # noqa: B010  # pydantic's own is a method
    return schema

"""Schemas of a provider that runs elsewhere: the node knows their fields, and the provider itself checks the values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, create_model
from pydantic_core import SchemaValidator

from capsule.broker.apart.answers import validator
from capsule.broker.sdk import BodyKind, Descriptor, Limits, Operation, Schema, ScopeSchema
from capsule.broker.shapes import Shape
from capsule_protocol.messages.base import Data, Part

_OPEN = ConfigDict(extra="allow", frozen=True, strict=False, hide_input_in_errors=True)
_LIMITS = TypeAdapter(Limits)


class _Response(Schema):
    """What the provider answers; `fits` knows what that may be."""

    model_config = _OPEN
    fits: ClassVar[SchemaValidator]


class _Scope(ScopeSchema):
    """Whatever a grant says; the provider checks it when the policy is loaded."""

    model_config = _OPEN


class _Operation(Part):
    """An operation as it is told, with JSON schemas. `answer` is that of responses as they travel."""

    summary: str
    request: Data
    response: Data
    answer: Data
    effects: bool
    takes_body: bool
    gives_body: bool
    returns: Literal["response", "body"]
    body_kind: BodyKind
    limits: Data


class _Told(Part):
    """A descriptor as it is told."""

    name: str
    version: str
    sdk: str
    needs: list[str]
    operations: dict[str, _Operation]


def told(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as it is told to the node."""
    operations = {
        name: _Operation(
            summary=each.summary,
            request=each.request.model_json_schema(),
            response=each.response.model_json_schema(),
            answer=each.response.model_json_schema(mode="serialization", by_alias=False),
            effects=each.effects,
            takes_body=each.takes_body,
            gives_body=each.gives_body,
            returns=each.returns,
            body_kind=each.body_kind,
            limits=asdict(each.limits),
        )
        for name, each in descriptor.operations.items()
    }
    name, version, sdk = descriptor.name, descriptor.version, descriptor.sdk
    needs = sorted(descriptor.needs)
    return _Told(name=name, version=version, sdk=sdk, needs=needs, operations=operations).model_dump()


def heard(said: dict[str, Any]) -> Descriptor:
    """The descriptor that the node uses. Raises some exception for what is none."""
    descriptor = _Told.model_validate(said)
    operations = {name: _operation(each) for name, each in descriptor.operations.items()}
    needs = frozenset(descriptor.needs)
    return Descriptor(
        descriptor.name, descriptor.version, operations, _Scope, descriptor.sdk, untrusted=True, needs=needs
    )


def read(response: type[Schema], value: dict[str, Any]) -> Schema:
    """An answer, as a response of this kind. Raises ValidationError if it is not as its provider describes it."""
    assert issubclass(response, _Response)
    response.fits.validate_python(value)
    return response.model_validate(value)


def _operation(said: _Operation) -> Operation:
    return Operation(
        summary=said.summary,
        request=_request(said.request),
        response=_response(said.response, said.answer),
        effects=said.effects,
        takes_body=said.takes_body,
        gives_body=said.gives_body,
        returns=said.returns,
        body_kind=said.body_kind,
        limits=_LIMITS.validate_python(said.limits),
    )


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


def _response(described: dict[str, Any], answer: dict[str, Any]) -> type[Schema]:
    made = create_model("Response", __base__=_Response)
    made.fits = validator(answer)
    return _describing(made, described)


def _describing(schema: type[Schema], described: dict[str, Any]) -> type[Schema]:
    """It is described as its provider does."""

    def model_json_schema(*_: Any, **__: Any) -> dict[str, Any]:
        return described

    setattr(schema, "model_json_schema", staticmethod(model_json_schema))  # noqa: B010  # pydantic's own is a method
    return schema

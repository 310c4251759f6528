"""Validators of what providers answer, made out of the JSON schemas in which they describe it.

They look at types, names of fields and allowed values; what a schema says beyond that counts for nothing.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, core_schema

_DEFINITIONS = "#/$defs/"
_PLAIN: dict[str, CoreSchema] = {
    "null": core_schema.none_schema(),
    "boolean": core_schema.bool_schema(strict=True),
    "integer": core_schema.int_schema(strict=True),
    "number": core_schema.float_schema(strict=True),
    "string": core_schema.str_schema(strict=True),
}


def validator(schema: dict[str, Any]) -> SchemaValidator:
    """One for values that fit this schema. Raises KeyError, TypeError or ValueError for what is none."""
    definitions: list[CoreSchema] = [
        core_schema.chain_schema([_made(part)], ref=_DEFINITIONS + name)
        for name, part in schema.get("$defs", {}).items()
    ]
    whole = core_schema.definitions_schema(_made(schema), definitions)
    return SchemaValidator(whole, core_schema.CoreConfig(hide_input_in_errors=True))


def _made(schema: Any) -> CoreSchema:
    if schema is True:
        return core_schema.any_schema()
    if "$ref" in schema:
        return core_schema.definition_reference_schema(schema["$ref"])
    if "enum" in schema or "const" in schema:
        return core_schema.literal_schema(schema["enum"] if "enum" in schema else [schema["const"]])
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return core_schema.union_schema([_made(each) for each in schema[keyword]])
    said = schema.get("type", [])
    types = said if isinstance(said, list) else [said]
    return core_schema.union_schema([_typed(each, schema) for each in types]) if types else core_schema.any_schema()


def _typed(name: str, schema: dict[str, Any]) -> CoreSchema:
    if name == "object":
        return _object(schema)
    if name == "array":
        return _array(schema)
    return _PLAIN[name]


def _object(schema: dict[str, Any]) -> CoreSchema:
    others = schema.get("additionalProperties", True)
    if "properties" not in schema:
        return core_schema.dict_schema(
            core_schema.str_schema(), None if others is False else _made(others), strict=True
        )
    required = schema.get("required", ())
    fields = {
        name: core_schema.typed_dict_field(_made(each), required=name in required)
        for name, each in schema["properties"].items()
    }
    if others is False:
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid", strict=True)
    return core_schema.typed_dict_schema(fields, extra_behavior="allow", extras_schema=_made(others), strict=True)


def _array(schema: dict[str, Any]) -> CoreSchema:
    first = [_made(each) for each in schema.get("prefixItems", ())]
    rest = schema.get("items", True)
    if not first:
        return core_schema.list_schema(_made(rest), strict=True)
    if rest is False or "items" not in schema:
        return core_schema.tuple_schema(first)
    return core_schema.tuple_schema([*first, _made(rest)], variadic_item_index=len(first))

"""What is made out of the model: the JSON Schema, the example file, the tables of the reference.

`python -m capsule.settings.pages docs` writes them; a test says when they are out of date.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.config import NodeConfig
from capsule.settings.flags import FLAGS
from capsule.settings.sources import NONE, variable
from capsule.settings.tree import NAME, Option, model_at, options

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = "reference/capsule.schema.json"
EXAMPLE = "examples/capsule.toml"
TABLES = "reference/configuration.md"
BEGIN, END = "<!-- begin: made by python -m capsule.settings.pages docs -->", "<!-- end -->"
WIDTH = 110


def schema() -> str:
    """The JSON Schema of `capsule.toml`."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    made = _without_null(NodeConfig.model_json_schema())
    return json.dumps(dialect | made | {"title": "capsule.toml"}, indent=2) + "\n"


def example() -> str:
    """A file with every option in a comment: with its default, or with an example if it has none."""
    parts = [f"#:schema ../{SCHEMA}", *_comment(_HEAD)]
    for table, found in _tables():
        if table:
            path = [part.replace(NAME, "default") for part in table]
            parts += ["", f"{'' if _is_there(path) else '#'}[{'.'.join(path)}]"]
        for option in found:
            parts += ["", *_comment(f"{option.field.description}.".replace("`", ""))]
            parts += [f"#{option.path[-1]} = {_toml(option)}"]
    return "\n".join(parts) + "\n"


def _is_there(path: list[str]) -> bool:
    """Whether the configuration has this table without a file; else the mere table would change something."""
    found: Any = NodeConfig()
    for part in path:
        found = found.get(part) if isinstance(found, dict) else getattr(found, part)
    return found is not None


def tables() -> str:
    """A table of the reference for each table of the file."""
    parts = []
    for table, found in _tables():
        parts += ["", f"## `[{'.'.join(table)}]`" if table else "## The top level", "", *_COLUMNS]
        parts += [_row(option) for option in found]
    return "\n".join([*parts, ""])


def with_tables(page: str) -> str:
    """The page of the reference with its tables as they are now."""
    made = f"{BEGIN}\n{tables()}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, page, flags=re.DOTALL)


_HEAD = (
    "Every option of Capsule with its default, or with an example where it has none. Remove the # in front of what "
    "you want to change. Times are in seconds, sizes in bytes; relative paths begin at the file. "
    "`capsule config check` tells what is wrong with it."
)
_COLUMNS = ["| option | variable, flag | type | default | reload | |", "|---|---|---|---|---|---|"]


def _tables() -> Iterator[tuple[tuple[str, ...], list[Option]]]:
    """The options by their tables; those of the top level come first, as TOML wants it."""
    found = sorted(options(NodeConfig), key=lambda option: len(option.path) > 1)
    for table, group in groupby(found, key=lambda option: option.path[:-1]):
        yield table, list(group)


def _without_null(schema: Any) -> Any:
    """The same for TOML, which has no null."""
    if isinstance(schema, list):
        return [_without_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema == {"type": "null"}:
        return {"const": NONE}
    if "$ref" in schema or "additionalProperties" in schema:  # the defaults of tables are those of their options
        schema = {name: one for name, one in schema.items() if name != "default" or one == {}}
    return {name: NONE if (name, one) == ("default", None) else _without_null(one) for name, one in schema.items()}


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)]


def _toml(option: Option) -> str:
    field = option.field
    value = field.examples[0] if field.default is None and field.examples else field.default
    return json.dumps(value, ensure_ascii=False)


def _row(option: Option) -> str:
    flags = [f"`{flag}`" for flag, path in FLAGS.items() if path == option.path]
    default = f'`"{NONE}"`' if option.field.default is None else f"`{_toml(option)}`"
    return (
        f"| `{option.path[-1]}` | {', '.join([f'`{variable(option.path)}`', *flags])} | {_type(option)} | {default} "
        f"| {'yes' if option.reloadable else 'no'} | {option.field.description} |"
    )


def _type(option: Option) -> str:
    """The type in TOML's words, and its bounds."""
    model = _model_of(option)
    found: dict[str, Any] = model["properties"][option.path[-1]]
    found = next((one for one in found.get("anyOf", ()) if one.get("type") != "null"), found)
    items = found.get("items", found.get("additionalProperties"))
    name = _TYPES.get(found.get("type", ""), found.get("type", "any"))
    text = f"{name} of {_TYPES.get(items['type'], items['type'])}s" if isinstance(items, dict) else name
    return ", ".join([text, *(f"{word} {found[key]}" for key, word in _BOUNDS.items() if key in found)])


def _model_of(option: Option) -> dict[str, Any]:
    model = model_at(NodeConfig, option.path[:-1])
    assert model is not None
    return model.model_json_schema()


_TYPES = {"object": "table", "number": "float"}
_BOUNDS = {"exclusiveMinimum": "more than", "minimum": "at least", "maximum": "at most"}


def main(folder: Path) -> None:
    """Write all of them below the folder of the documentation."""
    (folder / SCHEMA).write_text(schema(), encoding="utf-8")
    (folder / EXAMPLE).write_text(example(), encoding="utf-8")
    page = folder / TABLES
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The schema, the example file and the tables of the reference are those of the model."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from capsule.config import NodeConfig, load
from capsule.settings import pages
from capsule.settings.flags import FLAGS
from capsule.settings.tree import Option, options

DOCS = Path(__file__).parents[3] / "docs"
MADE = "run: python -m capsule.settings.pages docs"
EXAMPLE = DOCS / pages.EXAMPLE
SCHEMA: dict[str, Any] = json.loads(pages.schema())


def test_the_schema_is_up_to_date() -> None:
    assert json.loads((DOCS / pages.SCHEMA).read_text("utf-8")) == SCHEMA, MADE


def test_the_example_is_up_to_date() -> None:
    assert EXAMPLE.read_text("utf-8") == pages.example(), MADE


def test_the_tables_of_the_reference_are_up_to_date() -> None:
    page = (DOCS / pages.TABLES).read_text("utf-8")
    assert pages.BEGIN in page
    assert page == pages.with_tables(page), MADE


@pytest.mark.parametrize("option", list(options(NodeConfig)), ids=lambda option: ".".join(option.path))
def test_every_option_says_what_it_means(option: Option) -> None:
    assert option.field.description
    assert option.field.default is not None or option.field.examples, "it has an example if its default is None"


def test_every_flag_sets_an_option() -> None:
    assert set(FLAGS.values()) <= {option.path for option in options(NodeConfig)}


def test_the_example_changes_nothing() -> None:
    assert load(EXAMPLE) == NodeConfig()


def test_each_line_of_the_example_may_be_used(tmp_path: Path) -> None:
    text = re.sub(r"^#(\w+ = |\[)", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    data = tomllib.loads(text)
    named = {option.path[-1] for option in options(NodeConfig)}
    assert named == {
        key for table in tables(data) for key in table if not isinstance(table[key], dict) or key in {"env", "secrets"}
    }
    jsonschema.validate(data, SCHEMA)
    file = tmp_path / "capsule.toml"
    file.write_text(text)
    load(file)


def tables(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [data, *(inner for value in data.values() if isinstance(value, dict) for inner in tables(value))]


def test_an_editor_finds_the_schema_from_the_example() -> None:
    first = EXAMPLE.read_text("utf-8").split("\n")[0]
    assert first.startswith("#:schema ")
    assert (EXAMPLE.parent / first.removeprefix("#:schema ")).resolve() == (DOCS / pages.SCHEMA).resolve()


def test_the_schema_knows_how_none_is_written() -> None:
    jsonschema.validate({"serve": {"detached_ttl": "none"}, "environments": {"a": {"max_age": "none"}}}, SCHEMA)
    assert "null" not in pages.schema()


@pytest.mark.parametrize(
    "data",
    [{"max_sesions": 1}, {"serve": {"max_clients": 0}}, {"environments": {"a": {"min_idle": "x"}}}, {"serve": 1}],
)
def test_the_schema_refuses_what_the_model_refuses(data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)

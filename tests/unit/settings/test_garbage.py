"""Whatever a file says, it is taken or refused with a complaint: nothing else comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from capsule.config import NodeConfig
from capsule.settings.complaints import complaints
from capsule.settings.sources import DEFAULTS, Layer, Settings, written
from capsule.settings.tree import options, values

NAMES = sorted({part for option in options(NodeConfig) for part in option.path})
ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("none"), st.just("/"), st.dates()
)
KEYS = st.sampled_from([*NAMES, "unknown", ""])
DATA: st.SearchStrategy[Any] = st.recursive(
    ATOMS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=12
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(KEYS, DATA, max_size=5))
def test_a_configuration_is_good_or_there_are_complaints(data: dict[str, Any]) -> None:
    layer = Layer("file", written(data, Path("/somewhere")), {(): "file"})
    try:
        config = Settings(layers=[layer, DEFAULTS])  # type: ignore[call-arg]
    except ValidationError as error:
        found = complaints(NodeConfig, error)
        assert found
        for complaint in found:
            assert complaint.as_error().message
            assert layer.place(complaint.path) == "file"
    else:
        assert "default" in config.environments
        assert list(values(NodeConfig(**dict(config))))

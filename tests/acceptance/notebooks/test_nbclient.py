"""The notebooks of nbclient's own tests, fetched from the package index: their outputs are what we must give too."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
import xml.etree.ElementTree as ET
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.acceptance.cli.support import capsule

VERSION = "0.11.0"
CACHE = Path(__file__).parents[2] / ".cache" / f"nbclient-{VERSION}"

NAMES = (
    *("Autokill", "Check History in Memory", "Clear Output", "Disable Stdin", "Empty Cell", "Error", "Factorials"),
    *("HelloWorld", "Inline Image", "Interrupt", "JupyterWidgets", "Other Comms", "Output", "Parallel Execute A"),
    *("Parallel Execute B", "SVG", "Skip Exceptions", "Skip Exceptions with Cell Tags", "Sleep1s", "Unicode"),
    *("Skip Execution with Cell Tag", "UnicodePy3", "update-display-id"),
)

OPTIONS: dict[str, tuple[str, ...]] = {
    "Interrupt": ("--timeout", "1", "--allow-errors"),
    "Skip Exceptions": ("--allow-errors",),
    "Error": ("--allow-errors",),
}
"""How nbclient's tests run them, too."""

CODES = {"Autokill": 3, "Disable Stdin": 1, "update-display-id": 1}
"""The exit codes that are not 0: the worker dies, `input()` has nobody to ask, and the last exception below."""

EXCEPTIONS = {
    "Autokill": "has no outputs of its own: the cell kills its process, so it gets an error that says so",
    "Disable Stdin": "has no outputs of its own: input() raises EOFError, not the error that ipykernel has for it",
    "Interrupt": "what a time-out ended is an error TimeoutError, while nbclient's kernel sees a KeyboardInterrupt",
    "Output": "Output widgets are filled by a front end, which `capsule run` is not: what they capture is shown",
    "Sleep1s": "prints the time of day",
    "update-display-id": "sends Jupyter messages through sockets of ipykernel; test_recorder.py has its displays",
}
"""The notebooks whose outputs are not those in the file, and why."""


@pytest.fixture(scope="module")
def originals() -> Path:
    """The folder of the notebooks; fetched once."""
    if not CACHE.is_dir():
        CACHE.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as temporary:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "nbclient"]
            subprocess.run([*command, "--dest", temporary, f"nbclient=={VERSION}"], check=True, timeout=300)
            (archive,) = Path(temporary).glob("*.tar.gz")
            with tarfile.open(archive) as files:
                files.extractall(temporary, filter="data")
            unpacked = Path(temporary) / archive.name.removesuffix(".tar.gz")
            # Another run may have been faster.
            if not CACHE.is_dir():
                unpacked.rename(CACHE)
    return CACHE / "tests" / "files"


class Outcome:
    """What a run of one notebook gave."""

    def __init__(self, original: Path, work: Path) -> None:
        target = work / f"out-{original.name}"
        env = ("--env", f"NBEXECUTE_TEST_PARALLEL_TMPDIR={work}")
        done = capsule("run", *OPTIONS.get(original.stem, ()), *env, "--output", target, original)
        self.code = done.returncode
        self.stderr = done.stderr.decode()
        self.expected = _read(original)
        self.actual = _read(target)


@pytest.fixture(scope="module")
def outcomes(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All notebooks, run two at a time; the two parallel ones wait for each other."""
    work = tmp_path_factory.mktemp("nbclient")
    names = sorted(NAMES, key=lambda name: not name.startswith("Parallel"))
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda name: Outcome(originals / f"{name}.ipynb", work), names)
        return dict(zip(names, results, strict=True))


def _read(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are old or break the schema
        return nbformat.read(path, as_version=4)


def test_no_notebook_is_left_out(originals: Path) -> None:
    assert {path.stem for path in originals.glob("*.ipynb")} == set(NAMES)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_it_ends_as_it_should(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].code == CODES.get(name, 0), outcomes[name].stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in EXCEPTIONS])
def test_it_has_the_outputs_that_it_had(outcomes: dict[str, Outcome], name: str) -> None:
    expected, actual = outcomes[name].expected, outcomes[name].actual
    assert len(actual.cells) == len(expected.cells)
    for ours, theirs in zip(actual.cells, expected.cells, strict=True):
        assert [_comparable(output) for output in ours.get("outputs", [])] == [
            _comparable(output) for output in theirs.get("outputs", [])
        ], theirs.source
        # Three of them were saved without having been run.
        if any(cell.get("execution_count") for cell in expected.cells):
            assert ours.get("execution_count") == theirs.get("execution_count")


@pytest.mark.timeout(300)
def test_the_exceptions_do_what_their_reasons_say(outcomes: dict[str, Outcome]) -> None:
    errors = {
        name: [output.ename for cell in outcomes[name].actual.cells for output in cell.outputs if "ename" in output]
        for name in EXCEPTIONS
    }
    assert errors == {
        "Autokill": ["crashed"],
        "Disable Stdin": ["EOFError"],
        "Interrupt": ["TimeoutError"],
        "Output": [],
        "Sleep1s": [],
        "update-display-id": ["AttributeError"],
    }
    assert outcomes["Interrupt"].actual.cells[1].outputs[0].text == "done\n"
    shown = [output.get("text", "") for cell in outcomes["Output"].actual.cells for output in cell.outputs]
    assert "hi\nin output\n" in shown


def _comparable(output: Any) -> dict[str, Any]:
    """An output without what may differ: metadata, identities, line breaks in base64, the looks of tracebacks."""
    plain: dict[str, Any] = copy.deepcopy(dict(output))
    plain.pop("metadata", None)
    if "traceback" in plain:
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(plain.pop("traceback")))
        arrows = re.findall(r"^-+> *\d+ +(.*)$", text, re.MULTILINE)
        plain["raised at"] = ["".join(line.split()) for line in arrows]
    plain["data"] = {mime: _content(mime, value) for mime, value in plain.get("data", {}).items()}
    return plain


def _content(mime: str, value: Any) -> Any:
    if mime == "application/vnd.jupyter.widget-view+json":
        return {**value, "model_id": ""}
    if mime == "image/svg+xml":
        return [(element.tag, sorted(element.attrib.items())) for element in ET.fromstring(value).iter()]
    if mime.startswith("image/"):
        return b64decode(value)
    return value

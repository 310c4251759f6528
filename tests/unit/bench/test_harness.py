"""The harness runs each contender in a process of its own, in turns, and survives what they do."""

from __future__ import annotations

import ast
import importlib.util
import os
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from capsule_bench import main as program
from capsule_bench.child import Job
from capsule_bench.harness import measure_once, run_area
from capsule_bench.machine import memory
from capsule_bench.model import Area, Contender, Load, Measure, Must
from capsule_bench.records import append, read

LOAD = Load(samples=3, warmup=1, size=7)
COUNTS = Measure("counts", "counting", "things", LOAD, LOAD, higher_is_better=True, must=Must(median=2, ratio=1))
MODULE = """
import os, pathlib, sys
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured

def counts(load: Load) -> Measured:
    print("noise on stdout", flush=True)
    with pathlib.Path(__file__).with_name("turns.txt").open("a") as turns:
        turns.write(f"{__name__} {os.getpid()} {load.samples} {load.warmup} {load.size}\\n")
    return Measured([1.0, 2.0, 6.0], memory())

def raises(load: Load) -> Measured:
    raise OSError("no such thing")

def dies(load: Load) -> Measured:
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)

def stumbles(load: Load) -> Measured:
    import atexit
    atexit.register(os._exit, 4)
    return counts(load)

def repeats(load: Load) -> Measured:
    return Measured([1.0], memory(), repeated=2)

def empty(load: Load) -> Measured:
    return Measured([], memory())

def forever(load: Load) -> Measured:
    import signal
    while True:
        signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two contenders, `ours` and `theirs`, from which processes can import."""
    for name in ("ours", "theirs"):
        (tmp_path / f"bench_test_{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


OURS = Contender("ours", "bench_test_ours", ("pytest", "a-package-that-is-not-there"))
THEIRS = Contender("theirs", "bench_test_theirs")


def area(*measures: Measure) -> Area:
    """An area of two contenders."""
    return Area("trivial", "trivial things", measures, (OURS, THEIRS))


def test_contenders_take_turns_each_time_in_a_fresh_process(folder: Path) -> None:
    told: list[str] = []
    results = list(run_area(area(COUNTS), rounds=2, tell=told.append))

    turns = [line.split() for line in (folder / "turns.txt").read_text().splitlines()]
    assert [turn[0] for turn in turns] == [f"bench_test_{name}" for name in ("ours", "theirs", "theirs", "ours")]
    assert len({turn[1] for turn in turns}) == 4
    assert all(turn[2:] == ["3", "1", "7"] for turn in turns)
    assert len(told) == 4

    ours, theirs = results
    assert (ours.contender, theirs.contender, ours.measure, ours.unit) == ("ours", "theirs", "counts", "things")
    assert (ours.n, ours.min, ours.median, ours.p99, ours.rounds) == (6, 1.0, 2.0, 1.0, [2.0, 2.0])
    assert ours.error is None
    assert ours.memory.rss > 2**20
    assert list(ours.versions) == ["pytest"]
    assert ours.machine["cores"] == os.cpu_count()
    assert ours.run == theirs.run


def test_a_failing_contender_is_a_result_and_gets_no_further_round(folder: Path) -> None:
    (folder / "bench_test_theirs.py").write_text("def counts(load): raise OSError('no such thing')")
    told: list[str] = []
    ours, theirs = run_area(area(COUNTS), rounds=2, tell=told.append)
    assert ours.error is None
    assert ours.n == 6
    assert theirs.error is not None
    assert (theirs.error.name, theirs.error.message) == ("OSError", "no such thing")
    assert (theirs.n, theirs.median, theirs.rounds) == (0, None, [])
    assert sum("| theirs |" in line for line in told) == 1


def test_tries_that_were_repeated_are_told_and_counted_over_all_rounds(folder: Path) -> None:
    told: list[str] = []
    ours, theirs = run_area(area(replace(COUNTS, name="repeats")), rounds=2, tell=told.append)
    assert (ours.n, ours.repeated, theirs.repeated) == (2, 4, 4)
    assert told[-1].endswith("| 1 things, 4 repeated")


@pytest.mark.parametrize(
    ("measure", "name", "message"),
    [
        ("raises", "OSError", "no such thing"),
        ("dies", "Crashed", "exit code 3: last words"),
        ("stumbles", "Crashed", "exit code 4: noise on stdout"),
        ("empty", "WrongResultError", "the contender measured nothing"),
        ("missing", "AttributeError", "module 'bench_test_ours' has no attribute 'missing'"),
    ],
)
def test_whatever_a_contender_does_is_told(folder: Path, measure: str, name: str, message: str) -> None:
    assert measure_once(OURS, measure, LOAD) == {"error": {"name": name, "message": message}}


def test_a_contender_that_cannot_be_imported_is_told(folder: Path) -> None:
    answer = measure_once(Contender("gone", "bench_test_gone"), "counts", LOAD)
    assert answer == {"error": {"name": "ModuleNotFoundError", "message": "No module named 'bench_test_gone'"}}


def test_a_contender_that_never_ends_is_ended(folder: Path) -> None:
    answer = measure_once(OURS, "forever", Load(samples=1, seconds=0.5))
    assert answer == {"error": {"name": "TimeoutExpired", "message": "took longer than 0.5 s"}}


def test_a_job_survives_the_command_line() -> None:
    job = Job("module", "measure", LOAD, ("one", "two"), "/tmp/answer file.json")
    assert Job.from_json(job.as_json()) == job


def test_memory_counts_this_process() -> None:
    assert memory().rss > 2**20


def test_the_command_measures_saves_and_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trivial = area(COUNTS)
    monkeypatch.setattr(program, "AREAS", {"trivial": trivial})
    monkeypatch.chdir(folder)
    run = CliRunner().invoke(program.area_command(trivial), ["--quick", "--save", "saved.jsonl"])
    assert run.exit_code == 0, run.output
    assert "| 1x | counting | 2 things (1) | 2 things (1) | ≥ 2 things, ≥ 1x theirs | pass |" in run.stdout
    assert len(read(folder / "saved.jsonl")) == 2

    shown = CliRunner().invoke(program.main, ["table", "saved.jsonl"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == run.stdout


def test_a_quick_run_is_saved_nowhere_unless_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trivial = area(COUNTS)
    monkeypatch.setattr(program, "AREAS", {"trivial": trivial})
    monkeypatch.chdir(folder)
    run = CliRunner().invoke(program.area_command(trivial), ["--quick", "--contender", "ours"])
    assert run.exit_code == 0, run.output
    assert not list(folder.rglob("*.jsonl"))


def test_the_list_names_every_measure_and_contender() -> None:
    run = CliRunner().invoke(program.main, ["list"])
    assert run.exit_code == 0
    for each in program.AREAS.values():
        names = [*(f"measure {measure.name}:" for measure in each.measures), *(c.name for c in each.contenders)]
        assert all(name in run.output for name in names)


def test_a_table_of_nothing_says_how_to_get_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(program.main, ["table"])
    assert run.exit_code == 1
    assert "capsule-bench execute" in run.output


def test_a_table_of_an_unknown_area_names_the_known_ones(folder: Path) -> None:
    append(folder / "trivial.jsonl", run_area(Area("trivial", "", (COUNTS,), (OURS,)), quick=True))
    run = CliRunner().invoke(program.main, ["table", str(folder / "trivial.jsonl")])
    assert run.exit_code == 1
    assert "no such area: trivial; known: execute" in run.output


def test_every_contender_has_a_function_for_every_measure() -> None:
    for each in program.AREAS.values():
        for number, contender in enumerate(each.contenders):
            wanted = {measure.name for measure in each.measures if number == 0 or not measure.alone}
            spec = importlib.util.find_spec(contender.module)
            assert spec is not None
            assert spec.origin is not None
            tree = ast.parse(Path(spec.origin).read_text())
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            methods = {
                ast.unparse(node.targets[0])  # of measures that contenders share: `start = KERNELS.start`
                for node in tree.body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute)
            }
            shared = {  # of measures that stand in a module for each part of an area
                alias.asname or alias.name
                for node in tree.body
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("capsule_bench.")
                for alias in node.names
            }
            assert wanted <= functions | methods | shared


def test_a_measure_of_the_first_contender_alone_leaves_the_others_out() -> None:
    alone = replace(COUNTS, alone=True)
    assert [result.contender for result in run_area(area(alone), quick=True)] == ["ours"]

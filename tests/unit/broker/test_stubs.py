"""What type checkers are told of `caps` is what the providers say."""

from __future__ import annotations

from pathlib import Path

from mypy import api

from capsule.broker.stubs import stubs

ROOT = Path(__file__).parents[3]
FILE = ROOT / "kernels/stubs/caps/__init__.pyi"
USE = """
import caps

async def use() -> None:
    held: bytes = caps.files.read("data/a.txt")
    awaited: bytes = await caps.files.read(path="data/a.txt", length=3)
    size: int = caps.files.write("data/b.txt", data=b"x").size
    status: int = (await caps.http.fetch("https://example.org/")).status
    out: bytes = caps.shell.run(["ls"]).stdout
    for stream, part in caps.shell.run.stream(["ls"]):
        print(stream.upper(), part.hex())
    caps.plain.files.remove("data/a.txt", missing_ok=True)
"""
WRONG = (
    "caps.files.read(3)",
    "caps.files.nothing()",
    "caps.files.write('a', size=3)",
    "x: str = caps.files.stat('a').size",
    "caps.nobody",
)


def test_the_file_is_what_the_providers_say() -> None:
    assert FILE.read_text(encoding="utf-8") == stubs(), f"python -m capsule.broker.stubs {FILE.relative_to(ROOT)}"


def test_a_type_checker_knows_what_calls_take_and_give(tmp_path: Path, monkeypatch: object) -> None:
    used = tmp_path / "used.py"
    lines = USE.count("\n") + 1
    used.write_text(USE + "".join(f"\n{wrong}" for wrong in WRONG), encoding="utf-8")
    told, failed, _ = api.run(["--strict", "--config-file", str(ROOT / "pyproject.toml"), str(used)])
    assert not failed
    found = {int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line}
    assert found == set(range(lines + 1, lines + 1 + len(WRONG))), told

"""The files of a session are read and checked before anything is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from capsule import ArgumentError
from capsule.client.files import check_files
from capsule.client.options import build_options
from capsule_protocol.limits import DEFAULT_LIMITS

MIB = 2**20


def test_contents_are_bytes_text_or_the_file_at_a_path(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"a,b\n")
    files: dict[str, Any] = {"a": b"\x00\xff", "b/c": "é", "d": tmp_path / "in.csv", "e": bytearray(b"1")}
    assert check_files(files, MIB) == {"a": b"\x00\xff", "b/c": "é".encode(), "d": b"a,b\n", "e": b"1"}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../x", "a/..", "..", ".", "./a", "", "a//b", "a/", "a\0b", "\ud800", 3, b"a"]
)
def test_a_name_that_leads_elsewhere_or_nowhere_is_refused(name: Any) -> None:
    with pytest.raises(ArgumentError, match=r"files: has the name .*allowed: 'name' or 'folder/name'") as caught:
        check_files({name: b""}, MIB)
    assert caught.value.argument == "files"


@pytest.mark.parametrize("files", [["a"], "a", b"a", 3, {"a": None}, {"a": 3}, {"a": ["b"]}, {"a": "\ud800"}])
def test_what_is_no_mapping_to_contents_is_refused(files: Any) -> None:
    with pytest.raises(ArgumentError, match=r"files: .*allowed: a mapping") as caught:
        check_files(files, MIB)
    assert caught.value.argument == "files"


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: reading it would never end
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        with pytest.raises(ArgumentError, match=r"files: .*not a file"):
            check_files({"a": path}, MIB)


def test_all_together_have_a_bound_which_names_count_for(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"")
    os.truncate(large, 2**40)  # never read as a whole
    assert check_files({"a": b"1234", "b": b"5678"}, 10)
    for files in ({"a": b"1234", "b": b"56789"}, {"aa": b"1234", "b": b"5678"}, {"a": large}):
        with pytest.raises(ArgumentError, match=r"files: are too large.*at most 10 bytes") as caught:
            check_files(files, 10)
        assert caught.value.argument == "files"


def test_the_bound_is_half_a_message(tmp_path: Path) -> None:
    half = {"a": b"x" * (32 * MIB - 1)}
    assert build_options("default", {}, env=None, cwd=None, name=None, files=half).files == half
    with pytest.raises(ArgumentError, match="half of message_bytes"):
        build_options("default", {"message_bytes": MIB}, env=None, cwd=None, name=None, files=half)


def test_there_are_only_so_many() -> None:
    files = {str(number): b"" for number in range(DEFAULT_LIMITS.buffers + 1)}
    with pytest.raises(ArgumentError, match="files: are 1025; allowed: at most 1024 files"):
        check_files(files, MIB)


def test_with_files_the_callers_directory_is_not_the_sessions(tmp_path: Path) -> None:
    def cwd(**given: Any) -> str | None:
        return build_options("default", {}, env=None, name=None, **{"cwd": None, **given}).cwd

    assert cwd(files={"a": "1"}) is None
    assert cwd(files={"a": "1"}, cwd=tmp_path) == str(tmp_path)
    assert cwd() == str(Path.cwd())
    assert cwd(files={}) is cwd(address="ipc:///n") is None


def test_contents_stay_out_of_what_is_printed() -> None:
    options = build_options("default", {}, env=None, cwd=None, name=None, files={"a": "s3cret"})
    assert "s3cret" not in repr(options)

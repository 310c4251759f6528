"""`%capsule`: what a session tells of itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncClient, AsyncSession

pytestmark = pytest.mark.anyio


def rows(text: str) -> dict[str, str]:
    """What stands behind the first word of each line."""
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}


async def test_info_tells_what_the_node_knows_of_the_session(client: AsyncClient, tmp_path: Path) -> None:
    async with client.session(name="mine", cwd=str(tmp_path)) as session:
        result = await session.run("%capsule info")
        info = await session.info()
        told = rows(result.stdout)
    assert told["session"] == f"mine ({info.id})"
    assert (told["environment"], told["epoch"]) == (info.environment, str(info.epoch))
    assert told["process"].startswith(f"{info.pid}, CPython 3.")
    assert told["directory"] == os.path.realpath(tmp_path)
    assert int(told["memory"].removesuffix(" MiB")) > 5
    assert "node" not in told


async def test_store_keeps_values_for_another_session_of_the_same_ipython_directory(
    client: AsyncClient, tmp_path: Path
) -> None:
    env = {"IPYTHONDIR": str(tmp_path / "ipython")}
    async with client.session(env=env) as one:
        assert (await one.run("kept = {'a': 41}\n%store kept")).stdout == "Stored 'kept' (dict)\n"
        assert (await one.run("%store kept")).stdout == "Stored 'kept' (dict)\n"
    async with client.session(env=env) as other:
        assert (await other.run("%store -r\nkept['a'] + 1")).text == "42"
    async with client.session(env={"IPYTHONDIR": str(tmp_path / "elsewhere")}) as third:
        assert "kept" not in (await third.run("%store")).stdout


async def test_store_says_where_it_cannot_keep_anything(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "profile_default").write_text("no directory")
    async with client.session(env={"IPYTHONDIR": str(tmp_path)}) as session:
        error = (await session.run("x = 1\n%store x")).error
    assert error is not None
    assert error.name == "UsageError"
    assert f"%store cannot keep anything in {tmp_path}" in error.message
    assert "IPYTHONDIR" in error.message


async def test_info_tells_of_a_restart(session: AsyncSession) -> None:
    before = (await session.info()).epoch
    await session.restart()
    assert rows((await session.run("%capsule info")).stdout)["epoch"] == str(before + 1)


async def test_namespace_tells_names_types_and_sizes(session: AsyncSession) -> None:
    await session.run(
        "import os, numpy\ntext = 'four'\nmatrix = numpy.zeros((2, 3))\nclass Own: pass\nown = Own()\n_hidden = 1"
    )
    told = rows((await session.run("%capsule namespace")).stdout)
    assert sorted(told) == ["Own", "matrix", "own", "text"]
    assert told["text"].split() == ["str", "4", "'four'"]
    assert told["matrix"].split()[:2] == ["ndarray", "2×3"]


async def test_an_empty_namespace_is_no_error(session: AsyncSession) -> None:
    result = await session.run("%capsule namespace")
    assert (result.verdict, result.stdout) == ("ok", "")


async def test_more_variables_than_are_told_are_counted(session: AsyncSession) -> None:
    await session.run("globals().update({f'v{n:04}': n for n in range(1003)})")
    lines = (await session.run("%capsule namespace")).stdout.splitlines()
    assert (len(lines), lines[-1]) == (1001, "and 3 more")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("%capsule", "%capsule does not know ''. Write %capsule info, %capsule namespace or %capsule output."),
        (
            "%capsule nothing",
            "%capsule does not know 'nothing'. Write %capsule info, %capsule namespace or %capsule output.",
        ),
        ("%capsule info now", "%capsule info takes nothing more: 'now' is not understood."),
        ("%capsule output five", "%capsule output takes the number of a cell, such as 5, not 'five'."),
        ("%capsule output 0", "%capsule output takes the number of a cell, such as 5, not '0'."),
        ("%capsule output 5", "%capsule output is for notebooks: other clients have the output of what they ran."),
        (
            "%connect_info",
            (
                "%connect_info is not there: the connection file belongs to whoever has started the kernel. "
                "%capsule info shows how a Python program reaches this session."
            ),
        ),
        (
            "%qtconsole",
            (
                "%qtconsole is not there: a session has no display. Start `jupyter qtconsole --existing FILE` "
                "yourself, with the kernel's connection file."
            ),
        ),
        ("%less", "%less needs the name of one file"),
    ],
)
async def test_what_it_does_not_know_is_refused_as_ipython_does(session: AsyncSession, code: str, why: str) -> None:
    result = await session.run(code)
    assert result.error is not None
    assert (result.error.name, result.error.message) == ("UsageError", why)
    assert result.error.traceback == [f"UsageError: {why}"]

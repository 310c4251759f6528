"""Tracebacks, magics and rich display are those of a notebook."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from capsule.events import Display, Event, Output
from tests.acceptance.behaviour.support import cell, ok, run

if TYPE_CHECKING:
    from capsule import AsyncSession, Result


def lines_of(result: Result) -> str:
    assert result.error is not None
    return "\n".join(result.error.traceback)


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"], ids=["threaded", "async"])
async def test_a_traceback_shows_source_text_and_cell_numbers(session: AsyncSession, before: str) -> None:
    await ok(session, "def inner(n):\n    wrong = n / 0  # the place\n    return wrong")
    result = await run(session, before + "def outer():\n    return inner(1)\nouter()")
    text = lines_of(result)
    assert result.error is not None
    assert (result.error.name, result.error.message) == ("ZeroDivisionError", "division by zero")
    for part in ("wrong = n / 0  # the place", "return inner(1)", "outer()", "ZeroDivisionError: division by zero"):
        assert part in text
    assert "In[1]" in text or "In [1]" in text
    assert "In[2]" in text or "In [2]" in text
    assert "\x1b" not in text


@pytest.mark.anyio
async def test_a_chained_traceback_shows_both(session: AsyncSession) -> None:
    result = await run(session, "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('outer') from e")
    text = lines_of(result)
    assert "{}['k']" in text
    assert "KeyError" in text
    assert "raise ValueError('outer') from e" in text


@pytest.mark.anyio
async def test_a_syntax_error_shows_its_line(session: AsyncSession) -> None:
    result = await run(session, "x = 1\ny = = 2\n")
    assert result.verdict == "error"
    text = lines_of(result)
    assert result.error is not None
    assert result.error.name == "SyntaxError"
    assert "y = = 2" in text
    assert "^" in text


@pytest.mark.anyio
async def test_a_traceback_shows_no_line_of_the_engine(session: AsyncSession) -> None:
    for code in ("1 / 0", "import asyncio\nawait asyncio.sleep(0)\n1 / 0"):
        text = lines_of(await run(session, code))
        assert "capsule_kernels" not in text
        assert "site-packages/IPython" not in text


MAGICS = {
    "%timeit": ("%timeit -n1 -r1 pass", "loop"),
    "%time": ("%time sum(range(10))", "time"),
    "%%time": ("%%time\nprint('inside')", "inside\n"),
    "!ls": ("!ls -d /tmp", "/tmp"),
    "!! as value": ("x = !echo one two\nprint(x)", "one two"),
    "%%bash": ("%%bash\necho from $((40 + 2))", "from 42\n"),
    "%%sh": ("%%sh\necho sh", "sh\n"),
    "%env": ("%env CAPSULE_TEST=1\nimport os; print(os.environ['CAPSULE_TEST'])", "1\n"),
    "%cd": ("%cd /\n%pwd", "/"),
    "%who": ("whoever = 1\n%who", "whoever"),
    "%%writefile": (
        "import tempfile; p = tempfile.mktemp()\nget_ipython().run_cell_magic('writefile', p, 'a')\n!cat $p; rm $p",
        "a",
    ),
    "%run": (
        "import tempfile; p = tempfile.mktemp('.py'); _ = open(p, 'w').write('print(6*7)')\n%run $p\n!rm $p",
        "42\n",
    ),
    "%%capture": ("%%capture got\nprint('captured')", ""),
    "%history": ("%history -n 1", "1:"),
    "?": ("import os\nos.getcwd?", ""),
}


@pytest.mark.anyio
@pytest.mark.parametrize("magic", MAGICS)
async def test_a_magic_works(session: AsyncSession, magic: str) -> None:
    code, expected = MAGICS[magic]
    result = await ok(session, code)
    assert expected in result.stdout + result.stderr


@pytest.mark.anyio
async def test_a_failing_bash_cell_is_an_error(session: AsyncSession) -> None:
    result = await run(session, "%%bash\nexit 3")
    assert result.verdict == "error"
    assert result.error is not None
    assert result.error.name == "CalledProcessError"


@pytest.mark.anyio
async def test_get_ipython_is_there(session: AsyncSession) -> None:
    code = "from IPython import get_ipython as imported\nget_ipython() is imported(), get_ipython().execution_count"
    assert (await ok(session, code)).text == "(True, 1)"


@pytest.mark.anyio
async def test_display_shows_a_bundle(session: AsyncSession) -> None:
    code = """
        from IPython.display import HTML, JSON, Markdown, display
        class Both:
            def _repr_html_(self): return "<b>both</b>"
            def __repr__(self): return "both"
        display(HTML("<i>html</i>"), Markdown("*md*"))
        display(Both())
        display({"a": 1}, metadata={"k": "v"})
        Both()
    """
    result = await ok(session, code)
    bundles = [display.data for display in result.displays]
    assert bundles[0]["text/html"] == "<i>html</i>"
    assert bundles[1]["text/markdown"] == "*md*"
    assert (bundles[2]["text/html"], bundles[2]["text/plain"]) == ("<b>both</b>", "both")
    assert bundles[3]["text/plain"] == "{'a': 1}"
    assert (result.text, result.data["text/html"]) == ("both", "<b>both</b>")


@pytest.mark.anyio
async def test_displays_and_prints_keep_their_order(session: AsyncSession) -> None:
    order: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Output):
            order.append(event.text)
        elif isinstance(event, Display):
            order.append(event.data["text/plain"] + "\n")

    code = """
        import os, sys
        for n in range(0, 200, 4):
            print(n)
            display(n + 1)
            os.write(1, b"%d\\n" % (n + 2))
            print(n + 3, file=sys.stderr)
    """
    await ok(session, code, on_event=note)
    assert "".join(order) == "".join(f"{n}\n" for n in range(200))


@pytest.mark.anyio
async def test_a_display_is_updated_by_its_id(session: AsyncSession) -> None:
    result = await ok(session, "h = display('old', display_id=True)\nh.update('new')\nprint('x')")
    assert [display.data["text/plain"] for display in result.displays] == ["'new'"]
    later: list[Event] = []
    await ok(session, "h.update('newer')", on_event=later.append)
    assert [event.update for event in later if isinstance(event, Display)] == [True]


@pytest.mark.anyio
async def test_clear_output_forgets(session: AsyncSession) -> None:
    code = "from IPython.display import clear_output\nprint('old')\nclear_output()\nprint('new')"
    assert (await ok(session, code)).stdout == "new\n"


@pytest.mark.anyio
async def test_an_image_arrives_as_it_is(session: AsyncSession) -> None:
    code = """
        from IPython.display import Image
        import struct, zlib
        def chunk(kind, data):
            return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        png = (b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 2, 0, 0, 0))
               + chunk(b'IDAT', zlib.compress(b'\\0\\xff\\0\\0')) + chunk(b'IEND', b''))
        Image(png)
    """
    result = await ok(session, cell(code))
    data = result.data["image/png"]
    raw = data if isinstance(data, bytes) else base64.b64decode(data)
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in raw


@pytest.mark.anyio
async def test_a_repr_that_raises_is_the_users_error_and_the_session_goes_on(session: AsyncSession) -> None:
    await run(session, "class Bad:\n    def __repr__(self): raise ValueError('in repr')\nBad()")
    assert (await ok(session, "6 * 7")).text == "42"

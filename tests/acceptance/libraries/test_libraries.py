"""Widely used libraries behave in a session as they do in a notebook."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from capsule.events import Display
from tests.acceptance.behaviour.support import cell, ok

if TYPE_CHECKING:
    from capsule import AsyncSession, Result

pytestmark = pytest.mark.anyio


def png_size(data: object) -> tuple[int, int]:
    """Width and height of a PNG, as a display carries it."""
    raw = data if isinstance(data, bytes) else base64.b64decode(str(data))
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", raw[16:24])
    return width, height


def images(result: Result) -> list[object]:
    return [display.data["image/png"] for display in result.displays if "image/png" in display.data]


async def test_numpy(session: AsyncSession) -> None:
    code = """
        import numpy as np
        a = np.arange(12.0).reshape(3, 4)
        (a @ a.T).shape, float(np.linalg.norm(a)), a
    """
    result = await ok(session, code)
    assert result.text.startswith("((3, 3),")
    assert "array([[ 0.,  1.,  2.,  3.]," in result.text


async def test_numpy_in_two_sessions_draws_different_numbers(session: AsyncSession, client: object) -> None:
    code = "import numpy as np, random\nfloat(np.random.random()), random.random()"
    first = await ok(session, code)
    await session.restart()
    assert (await ok(session, code)).text != first.text


async def test_a_data_frame_is_a_table(session: AsyncSession) -> None:
    result = await ok(session, "import pandas as pd\nframe = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\nframe")
    assert "<table" in result.data["text/html"]
    assert "<td>x</td>" in result.data["text/html"]
    assert result.text.splitlines()[0].split() == ["a", "b"]
    shown = await ok(session, "display(frame.describe())")
    assert "<table" in shown.displays[0].data["text/html"]


async def test_a_series_and_a_styled_frame(session: AsyncSession) -> None:
    assert "dtype: int64" in (await ok(session, "import pandas as pd\npd.Series([1, 2])")).text


@pytest.mark.parametrize("first", ["", "%matplotlib inline\n"], ids=["as it is", "inline"])
async def test_a_matplotlib_figure_is_a_png(session: AsyncSession, first: str) -> None:
    result = await ok(session, first + "import matplotlib.pyplot as plt\nline = plt.plot([1, 2, 4])")
    pictures = images(result)
    assert len(pictures) == 1
    assert min(png_size(pictures[0])) > 100
    again = await ok(session, "for n in range(2):\n    plt.figure(); plt.plot([n]); plt.show()")
    assert len(images(again)) == 2


async def test_a_preloaded_matplotlib_draws_the_same() -> None:
    """The environment imports it before there is a session."""
    environments = {"default": {"preload": ["numpy", "matplotlib.pyplot"]}}
    async with AsyncClient(environments=environments) as client, client.session() as session:
        result = await ok(session, "import matplotlib.pyplot as plt\nline = plt.plot([1, 2, 4])")
        assert len(images(result)) == 1


async def test_a_figure_is_shown_by_its_own_display(session: AsyncSession) -> None:
    code = """
        import matplotlib.pyplot as plt
        figure, axes = plt.subplots()
        axes.plot([1, 2])
        plt.close(figure)
        figure
    """
    result = await ok(session, code)
    assert min(png_size(result.data["image/png"])) > 100


async def test_tqdm_recognises_a_notebook(session: AsyncSession) -> None:
    """With ipywidgets its notebook bar is chosen, without them it says that they are missing: a terminal needs none."""
    code = """
        import warnings
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            import tqdm.autonotebook
        tqdm.autonotebook.tqdm.__module__, [str(w.message) for w in seen]
    """
    result = await ok(session, code)
    assert "tqdm.notebook" in result.text or "IProgress not found" in result.text


async def test_tqdm_draws_its_bar(session: AsyncSession) -> None:
    result = await ok(session, "from tqdm import tqdm\nfor n in tqdm(range(50)): pass")
    assert "50/50" in result.stderr
    assert "\r" in result.stderr


async def test_rich_recognises_a_notebook(session: AsyncSession) -> None:
    code = """
        from rich.console import Console
        from rich.table import Table
        import rich
        assert Console().is_jupyter
        rich.print("[bold]strong[/bold]")
        table = Table("a"); table.add_row("cell of a table")
        table
    """
    result = await ok(session, cell(code))
    assert any("strong" in display.data.get("text/html", "") for display in result.displays)
    shown = [display.data for display in result.displays] + [result.data]
    assert any("cell of a table" in str(bundle) for bundle in shown)


async def test_plotly_recognises_a_notebook(session: AsyncSession) -> None:
    code = """
        import plotly.graph_objects as go
        figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
        figure.show()
    """
    result = await ok(session, code)
    assert any("plotly" in kind or kind == "text/html" for display in result.displays for kind in display.data)


async def test_plotly_puts_none_of_its_javascript_into_a_notebook_unless_asked(client: AsyncClient) -> None:
    shown = "import plotly.graph_objects as go\ngo.Figure().show()"
    async with client.session() as session:
        (display,) = (await ok(session, shown)).displays
        assert list(display.data) == ["application/vnd.plotly.v1+json"]
    async with client.session(env={"PLOTLY_RENDERER": "notebook_connected"}) as session:
        assert all("text/html" in display.data for display in (await ok(session, shown)).displays)


async def test_ipython_display_classes(session: AsyncSession) -> None:
    code = """
        from IPython.display import SVG, Latex, Math, JSON, Javascript
        display(SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"), Latex("$a$"), JSON({"a": [1]}))
    """
    result = await ok(session, code)
    kinds = [set(display.data) for display in result.displays]
    assert "image/svg+xml" in kinds[0]
    assert "text/latex" in kinds[1]
    assert "application/json" in kinds[2]
    assert isinstance(result.displays[2], Display)
    assert result.displays[2].data["application/json"] == {"a": [1]}


async def test_multiprocessing_and_process_pools_work(session: AsyncSession) -> None:
    """Fork and spawn; spawn looks at `__main__`, which must be a sane one."""
    code = """
        import multiprocessing, concurrent.futures, operator
        with multiprocessing.get_context("fork").Pool(2) as pool:
            a = pool.map(abs, [-1, -2])
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            b = list(pool.map(abs, [-3]))
        a, b
    """
    assert (await ok(session, code)).text == "([1, 2], [3])"

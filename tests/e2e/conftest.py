from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.acceptance.jupyter import support
from tests.e2e import lab as labs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

SCREENSHOTS = Path(__file__).with_name("screenshots")
_FLAGS = (
    "--no-sandbox",  # or it would not start for root, as in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium is not None, "there is no Chromium; on Debian: apt-get install chromium"
    expect.set_options(timeout=labs.PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[labs.Lab]:
    """JupyterLab as `capsule jupyter` starts it, in a home of its own."""
    with support.home() as home:
        labs.be_quiet(home.root / "config")
        with labs.lab(tmp_path_factory.mktemp("notebooks")) as running:
            yield running


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page; how it looked in the end is kept."""
    with browser.new_context(viewport={"width": 1000, "height": 720}) as context:
        page = context.new_page()
        page.set_default_timeout(labs.PATIENCE * 1000)
        yield page
        SCREENSHOTS.mkdir(exist_ok=True)
        for number, shown in enumerate(context.pages):
            shown.screenshot(path=SCREENSHOTS / f"{request.node.name}{number or ''}.png")

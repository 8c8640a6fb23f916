"""What the tests of this room share: a browser, and verbs that draw."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from subprocess import CompletedProcess

import leftovers
import pytest
from browser import BROWSERS, Browser


@pytest.fixture
def command(command: Callable[..., CompletedProcess[str]]) -> Callable[..., CompletedProcess[str]]:
    """Run verbs that draw the plots of their pages, as these tests look at them."""
    return partial(command, plot=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a Chromium or Chrome without a window, if there is one."""
    name = next((name for name in BROWSERS if shutil.which(name)), None)
    if name is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(leftovers.mark(os.getpid()))  # what it starts for a page goes on to the next test
        playwright = api.sync_playwright().start()
        # Its sandbox does not start for root, as whom containers run; it only opens files that tests have written.
        opened = playwright.chromium.launch(executable_path=shutil.which(name), args=["--no-sandbox"])
    yield Browser(opened)
    opened.close()
    playwright.stop()

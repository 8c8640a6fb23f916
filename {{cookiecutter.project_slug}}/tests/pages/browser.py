"""A real browser for tests: opens a page that lies on disk and says what it showed, and what went wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Opened

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
IMAGES = "images => images.map(image => [image.alt, image.naturalWidth, image.complete])"
# How far the page, and what of it does not scroll by itself, reaches to the right.
REACH = "() => document.documentElement.scrollWidth"


@dataclass(frozen=True)
class Shown:
    """What a browser showed of a page, `width` pixels wide."""

    width: int
    reach: int  # pixels from the left that the page takes
    headings: list[str]  # of its sections
    images: list[tuple[str, int, bool]]  # what each shows in words, its own width, whether it has been loaded
    troubles: list[str]  # errors on the console and of scripts, requests that failed or left the page
    text: str

    def assert_whole(self) -> None:
        """Assert that nothing of it is missing, broken, asked from elsewhere or beyond the right edge."""
        assert self.troubles == []
        assert self.reach <= self.width
        assert [image for image in self.images if not image[0] or image[1] <= 0 or not image[2]] == []
        for word in ("None", "nan", "Undefined"):
            assert f" {word} " not in self.text


class Browser:
    """Opens pages."""

    def __init__(self, opened: "Opened") -> None:
        self._opened = opened

    def look_at(self, path: Path, width: int) -> Shown:
        """Open a file in a window so wide."""
        page = self._opened.new_page(viewport={"width": width, "height": 800})
        own, troubles = path.resolve().as_uri(), list[str]()
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url[:200]}"))
        page.on(
            "request",
            lambda asked: None if asked.url == own or asked.url.startswith("data:") else troubles.append(asked.url),
        )
        page.goto(own)
        shown = Shown(
            width=width,
            reach=page.evaluate(REACH),
            headings=page.locator("h2").all_inner_texts(),
            images=[tuple(image) for image in page.locator("img").evaluate_all(IMAGES)],
            troubles=troubles,
            text=page.inner_text("body"),
        )
        page.close()
        return shown

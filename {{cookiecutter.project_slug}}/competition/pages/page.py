"""Pages to look at: one self-contained file each, with its pictures inside, made from pages/page.html. No torch."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from competition.support.atomic_files import replacing

if TYPE_CHECKING:  # matplotlib and jinja2 are imported when a page is written
    from matplotlib.axes import Axes

JPEG_QUALITY = 80
GREY = "#80868b"  # read on a light and on a dark page
STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    **{"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "competition"},
}


@dataclass(frozen=True)
class Picture:
    """An image of a page: its data as a URI, what it shows in words, and lines below it."""

    source: str
    alt: str
    width: int
    height: int
    caption: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table of a page; all cells but those of the first column are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page: sentences, then tables, plots, pictures and smaller sections, as far as there are any."""

    title: str
    words: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    plots: Sequence[Picture] = ()
    legend: Sequence[tuple[str, str]] = ()  # color and name of what is drawn onto the pictures
    pictures: Sequence[Picture] = ()
    sections: Sequence["Section"] = ()


def write_page(path: Path, title: str, facts: Iterable[tuple[str, str]], sections: Iterable[Section]) -> None:
    """Write a page: its title, facts as names and values, and sections."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("competition", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(title=title, facts=list(facts), sections=list(sections))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def as_picture(drawn: np.ndarray, alt: str, caption: Sequence[str] = ()) -> Picture:
    """Return (h, w, 3) uint8 as a picture of a page."""
    done, data = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return Picture(_uri("image/jpeg", data.tobytes()), alt, drawn.shape[1], drawn.shape[0], tuple(caption))


def plot(
    draw: Callable[["Axes"], None], alt: str, *, height: float = 2.8, width: float = 4.4, left: float = 0.65
) -> Picture:
    """Return a plot that `draw` has drawn, so large that it is read on a phone; sides and the left margin in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    data = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        # Margins that are found by a layout engine would double the time.
        bottom, right, top = 0.5, width - 0.1, height - 0.3
        axes = figure.add_axes((left / width, bottom / height, (right - left) / width, (top - bottom) / height))
        draw(axes)
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return Picture(_uri("image/svg+xml", data.getvalue()), alt, round(width * 96), round(height * 96))


def css_color(color: tuple[int, int, int]) -> str:
    """Return a color as a page's style sheet has it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def number(value: float) -> str:
    """Write a number short: 12,345 and 0.01234."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

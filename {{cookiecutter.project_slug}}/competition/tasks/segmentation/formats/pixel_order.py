"""In which order run lengths count pixels, and from which number: no row says so, masks and their images may. No torch.

Read in the wrong order a mask of an image that is not square is sheared, and that of a square one mirrored along the
diagonal: the first shows in the mask alone, the second only beside the image. Training on either ends well and scores
nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from competition.files.item_source import ImageSource, train_source
from competition.support.errors import CompetitionError
from competition.support.spread import spread
from competition.tasks.contract import Table
from competition.tasks.segmentation.formats.mask_contrast import clearer_mask
from competition.tasks.segmentation.formats.mask_rows import MaskRows
from competition.tasks.segmentation.formats.rle import parse_rle
from competition.tasks.segmentation.settings import RunLengths, TaskConfig
from competition.tasks.unread_columns import unread_columns

Order = Literal["columns", "rows"]
IN_WORDS = {"columns": "down the columns", "rows": "along the rows"}
MOST_IMAGES = 32  # that are looked at
MOST_PIXELS = 1 << 25  # of an image that is read for it
LEAST_GAIN = 0.03  # share of the masks' pixels that more go on in the next line, where the order is told by that
LEAST_DEVIATIONS = 3  # of tosses of a coin, by which more images speak for an order than against it
FEWEST_EDGES = 3  # runs that begin with a line, and runs that end with one, by which the first number is told
MOST_ODD = 0.2  # share of them that do so in the other way of counting


@dataclass(frozen=True)
class Runs:
    """The runs of an image's masks, of all rows together."""

    source: ImageSource
    height: int
    width: int
    starts: np.ndarray  # (k,) number of the first pixel, from 0 as the config counts
    ends: np.ndarray  # (k,) number of the pixel behind the last

    def line_length(self, order: Order) -> int:
        """Return how many pixels are counted before the next line begins."""
        return self.height if order == "columns" else self.width

    def num_continued(self, order: Order) -> int:
        """Count pixels whose neighbour in the next line is inside another run: most of any mask that is whole.

        A run longer than a line goes on in itself, whatever is counted: the shorter the lines, the more so.
        """
        step = self.line_length(order)
        continued = self._inside_before(self.ends + step) - self._inside_before(self.starts + step)
        return int((continued - np.maximum(self.ends - self.starts - step, 0)).sum())

    def _inside_before(self, places: np.ndarray) -> np.ndarray:
        """Count pixels of runs before each of some places."""
        number = np.zeros(len(places), dtype=np.int64)
        for sign, edges in ((1, np.sort(self.starts)), (-1, np.sort(self.ends))):
            passed = np.searchsorted(edges, places)
            number += sign * (places * passed - np.concatenate([[0], np.cumsum(edges)])[passed])
        return number

    def mask(self, order: Order) -> np.ndarray:
        """Return (height, width) bool."""
        changes = np.zeros(self.height * self.width + 1, dtype=np.int32)
        np.add.at(changes, self.starts, 1)
        np.add.at(changes, self.ends, -1)
        pixels = np.cumsum(changes[:-1]) > 0
        return pixels.reshape(self.width, self.height).T if order == "columns" else pixels.reshape(self.height, -1)

    def vote(self) -> int:
        """Return 1 where the image shows the masks of columns, -1 where those of rows, 0 where it tells neither."""
        if self.height * self.width > MOST_PIXELS:
            return 0
        try:
            return clearer_mask(self.source.read(), self.mask("columns"), self.mask("rows"))
        except CompetitionError:  # an image at fault, which is told elsewhere
            return 0


@dataclass(frozen=True)
class Told:
    """What masks and images tell of how pixels are counted; none is what they do not."""

    order: Order | None
    witness: Literal["masks", "images"]  # that tell the order
    base: Literal[0, 1] | None

    def values(self) -> dict[str, Any]:
        """Return what is told by key of `format.rle`."""
        return {name: value for name, value in (("order", self.order), ("base", self.base)) if value is not None}


def settle(config: TaskConfig, table: Table) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of `format:` that masks and images tell otherwise than the config has them, and a line on what
    they tell and what is assumed."""
    form, masks = config.format.rle, getattr(table, "masks", None)
    if config.format.submission.style == "instances":
        return {}, []
    runs = list(_some_runs(config, table, masks)) if isinstance(masks, MaskRows) else []
    by_masks = _order_of_masks(runs)
    order = by_masks or _order_of_images(runs)
    told = Told(order, "masks" if by_masks else "images", _base(runs, order or form.order, form))
    other = {name: value for name, value in told.values().items() if value != getattr(form, name)}
    unread = _unread(config)
    if other:
        return {"rle": other}, [_warning(form, other, told), *unread]
    return {}, [_line(config, told, bool(runs)), *unread]


def _unread(config: TaskConfig) -> list[str]:
    layout = config.format.train
    if (
        config.format.like is not None
        or layout.keys is None
        or any("{class_id}" in one for one in layout.keys.values())
    ):
        return []
    way_on = "{class_id} in format.train.keys names the one that tells classes, if any does"
    return unread_columns(config.train_csv, [*layout.keys, layout.mask], way_on)


def _line(config: TaskConfig, told: Told, has_runs: bool) -> str:
    form = config.format.rle
    what = f"run lengths are read {IN_WORDS[form.order]}, the first pixel being {form.base}"
    assumed = [f"format.rle.{name}: {getattr(form, name)}" for name in ("order", "base") if name not in told.values()]
    if not assumed:
        more = "" if told.witness == "masks" else ", and of the first pixel the masks"
        return f"{what} (format.rle), as the {told.witness} tell{more}"
    named = " and ".join(assumed) + (" are assumed" if len(assumed) > 1 else " is assumed")
    if config.format.like is not None:
        named += f", as of {config.format.like}; if this is another competition, its page says it"
    else:
        named += "; the competition's page says it"
    if told.order is not None:
        return f"{what}; the {told.witness} tell the order, but {named}"
    if not has_runs:
        return f"{what}: {named}, no run lengths of training images do"
    return f"{what}: {named}, masks and images do not; look at them: train CONFIG --preview"


def _warning(form: RunLengths, other: dict[str, Any], told: Told) -> str:
    found = ", ".join(f"format.rle.{name}: {getattr(form, name)}" for name in other)
    fits = ", ".join(f"format.rle.{name}: {value}" for name, value in other.items())
    if "order" not in other:
        return f"warning: found {found}, but masks at a border begin and end there only by {fits}"
    reason = "are whole" if told.witness == "masks" else "lie on what images show"
    return f"warning: found {found}, but the masks {reason} only by {fits}"


def _some_runs(config: TaskConfig, table: Table, masks: MaskRows) -> Iterator[Runs]:
    """Yield the runs of some images with a mask, spread over the table; without those that have faults, which are told
    elsewhere."""
    filled = np.flatnonzero(masks.present().any(axis=1))
    for index in filled[spread(len(filled), MOST_IMAGES)].tolist():
        try:
            source = train_source(config, table.image_ids[index])
            size = source.read_size()
            pieces = [parse_rle(text, *size, config.format.rle) for text in masks.run_lengths(index)]
        except (CompetitionError, ValueError):
            continue
        starts, lengths = (np.concatenate(each) for each in zip(*pieces, strict=True))
        yield Runs(source, *size, starts, starts + lengths)


def _order_of_masks(runs: Sequence[Runs]) -> Order | None:
    """Return the order in which masks are whole; none where they are so in both, or in neither."""
    total = sum(int((one.ends - one.starts).sum()) for one in runs)
    gain = sum(one.num_continued("columns") - one.num_continued("rows") for one in runs)
    if abs(gain) <= LEAST_GAIN * total:
        return None
    return "columns" if gain > 0 else "rows"


def _order_of_images(runs: Sequence[Runs]) -> Order | None:
    """Return the order in which masks lie on what images show; none where too few say so, or others say otherwise."""
    votes: list[int] = []
    for some in (runs[::2], runs[1::2]):  # every other one is mostly enough: to read large images takes long
        votes += [one.vote() for one in some]
        if votes and abs(sum(votes)) >= LEAST_DEVIATIONS * len(votes) ** 0.5:
            return "columns" if sum(votes) > 0 else "rows"
    return None


def _base(runs: Sequence[Runs], order: Order, form: RunLengths) -> Literal[0, 1] | None:
    """Return the number of the first pixel by which runs begin with a line, and others end with one.

    Both are asked for: of masks that all stop short of a border by a pixel the ends alone tell the wrong number.
    """
    steps = [one.line_length(order) for one in runs]
    found: dict[Literal[0, 1], list[int]] = {
        base: [
            sum(int(((places + form.base - base) % step == 0).sum()) for places, step in zip(edges, steps, strict=True))
            for edges in ([one.starts for one in runs], [one.ends for one in runs])
        ]
        for base in (0, 1)
    }
    base: Literal[0, 1] = 0 if sum(found[0]) > sum(found[1]) else 1
    is_clear = min(found[base]) >= FEWEST_EDGES and sum(found[1 - base]) <= MOST_ODD * sum(found[base])
    return base if is_clear else None

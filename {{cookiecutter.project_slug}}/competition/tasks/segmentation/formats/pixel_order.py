"""In which order run lengths count pixels, and from which number: no row says so, masks and their images may. No torch.

Read in the wrong order a mask of an image that is not square is sheared, and that of a square one mirrored along the
diagonal: the first shows in the mask alone, the second only beside the image. Training on either ends well and scores
nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import cv2
import numpy as np

from competition.files.item_source import ImageSource, train_source
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table
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
FEWEST_ENDS, MOST_ODD = 6, 0.2  # runs that end with a line in one way of counting; share of them that do in the other


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
        """Count pixels whose neighbour in the next line is inside, too: most of any mask that is whole."""
        step = self.line_length(order)
        return int((self._inside_before(self.ends + step) - self._inside_before(self.starts + step)).sum())

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

    @cached_property
    def contrasts(self) -> dict[str, float]:
        """By order, how much more the image changes at the masks' borders than elsewhere."""
        pixels = self.source.read().astype(np.float32).mean(axis=2)
        smooth = cv2.blur(pixels, (3, 3))
        changes = [np.abs(np.diff(smooth, axis=axis)) for axis in (0, 1)]
        usual = [float(one.mean()) or 1.0 for one in changes]
        return {order: _contrast(self.mask(order), changes, usual) for order in get_args(Order)}


def _contrast(mask: np.ndarray, changes: Sequence[np.ndarray], usual: Sequence[float]) -> float:
    borders = [np.diff(mask, axis=axis) for axis in (0, 1)]
    number = sum(int(border.sum()) for border in borders)
    found = sum(float(one[border].sum()) / mean for one, border, mean in zip(changes, borders, usual, strict=True))
    return found / max(number, 1)


def settle(config: TaskConfig, table: Table) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of `format:` that masks and images tell otherwise than the config has them, and a line on what
    they tell and what is assumed."""
    form, masks = config.format.rle, getattr(table, "masks", None)
    if config.format.submission.style == "instances":
        return {}, []
    runs = list(_some_runs(config, table, masks)) if isinstance(masks, MaskRows) else []
    order = _order(runs)
    base = _base(runs, order or form.order, form)
    told = {name: value for name, value in (("order", order), ("base", base)) if value is not None}
    other = {name: value for name, value in told.items() if value != getattr(form, name)}
    unread = _unread(config)
    if other:
        return {"rle": other}, [_warning(form, other), *unread]
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


def _line(config: TaskConfig, told: dict[str, Any], has_runs: bool) -> str:
    form = config.format.rle
    what = f"run lengths are read {IN_WORDS[form.order]}, the first pixel being {form.base}"
    assumed = [f"format.rle.{name}: {getattr(form, name)}" for name in ("order", "base") if name not in told]
    if not assumed:
        return f"{what} (format.rle), as the masks tell"
    named = " and ".join(assumed) + (" are assumed" if len(assumed) > 1 else " is assumed")
    if config.format.like is not None:
        named += f", as of {config.format.like}; if this is another competition, its page says it"
    else:
        named += "; the competition's page says it"
    if "order" in told:
        return f"{what}; the masks tell the order, but {named}"
    if not has_runs:
        return f"{what}: {named}, no run lengths of training images do"
    return f"{what}: {named}, masks and images do not; look at them: train CONFIG --preview"


def _warning(form: RunLengths, other: dict[str, Any]) -> str:
    found = ", ".join(f"format.rle.{name}: {getattr(form, name)}" for name in other)
    fits = ", ".join(f"format.rle.{name}: {value}" for name, value in other.items())
    return f"warning: found {found}, but the masks are whole, or lie on what images show, only by {fits}"


def _some_runs(config: TaskConfig, table: Table, masks: MaskRows) -> Iterator[Runs]:
    """Yield the runs of some images with a mask, spread over the table; without those that have faults, which are told
    elsewhere."""
    filled = np.flatnonzero(masks.present().any(axis=1))
    some = filled[np.unique(np.linspace(0, len(filled) - 1, MOST_IMAGES).astype(int))] if len(filled) else filled
    for index in some.tolist():
        try:
            source = train_source(config, table.image_ids[index])
            size = source.read_size()
            pieces = [parse_rle(text, *size, config.format.rle) for text in masks.run_lengths(index)]
        except (CompetitionError, ValueError):
            continue
        starts, lengths = (np.concatenate(each) for each in zip(*pieces, strict=True))
        yield Runs(source, *size, starts, starts + lengths)


def _order(runs: Sequence[Runs]) -> Order | None:
    """Return the order that the masks' shapes tell, else the one in which they lie on what images show."""
    total = sum(int((one.ends - one.starts).sum()) for one in runs)
    gain = sum(one.num_continued("columns") - one.num_continued("rows") for one in runs)
    if abs(gain) > LEAST_GAIN * total:
        return "columns" if gain > 0 else "rows"
    votes = []
    for one in runs:
        if one.height * one.width > MOST_PIXELS:
            continue
        try:
            votes.append(np.sign(one.contrasts["columns"] - one.contrasts["rows"]))
        except CompetitionError:  # an image at fault, which is told elsewhere
            continue
    if abs(sum(votes)) < LEAST_DEVIATIONS * len(votes) ** 0.5 or not votes:
        return None
    return "columns" if sum(votes) > 0 else "rows"


def _base(runs: Sequence[Runs], order: Order, form: RunLengths) -> Literal[0, 1] | None:
    """Return the number of the first pixel by which runs at a border begin or end with a line."""
    found = {0: 0, 1: 0}
    for one in runs:
        step = one.line_length(order)
        for base in found:
            shift = form.base - base
            found[base] += int((((one.starts + shift) % step == 0) | ((one.ends + shift) % step == 0)).sum())
    base: Literal[0, 1] = 0 if found[0] > found[1] else 1
    return base if found[base] >= FEWEST_ENDS and found[1 - base] <= MOST_ODD * found[base] else None

"""What columns and rows leave open: whether numbers in brackets are a width or a corner, what one class is called. No
torch."""

from typing import Any

import numpy as np

from competition.files.item_source import train_source
from competition.support.errors import CompetitionError
from competition.support.spread import spread
from competition.tasks.contract import Table
from competition.tasks.detection.settings import DetectionSubmission, TaskConfig
from competition.tasks.found_items import ONE_CLASS
from competition.tasks.unread_columns import unread_columns

MOST_IMAGES = 64  # whose size is looked at
FARTHEST_OUT = 1.01  # of an image's side that boxes reach, as they may by rounding
LEAST_OUT = 0.1  # share of boxes that reach further, where numbers are corners and not widths


def settle(config: TaskConfig, table: Table) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of `format:` that boxes and images tell otherwise than the config has them, and lines on what is
    assumed."""
    told, lines = _layout(config, table)
    form = config.format
    if form.like is not None:
        return told, lines
    is_nameless = form.class_id is None and form.box_string in (None, "box")
    if is_nameless and _is_object(form.submission) and config.data.classes is None:
        key = "format.submission.class_names: [NAME]"
        lines.append(f"boxes are handed in as of class {ONE_CLASS!r}: where the host has another, {key}")
    if is_nameless:
        used = [*form.image_id_columns, *form.box_columns, "width", "height"]
        lines += unread_columns(config.train_csv, used, "format.class_id names the one that tells classes, if any does")
    return told, [*lines, _handed_in(form.submission.model_copy(update=told.get("submission")))]


def _is_object(form: DetectionSubmission) -> bool:
    return form.with_class and form.class_as == "name" and form.class_names is None


def _handed_in(form: DetectionSubmission) -> str:
    shape = " ".join(form.words)
    return (
        f"a box is handed in as `{shape}` (format.submission), of which a sample submission tells little; the "
        "competition's page says it"
    )


def _layout(config: TaskConfig, table: Table) -> tuple[dict[str, Any], list[str]]:
    """Return what tells whether the last two of four numbers in brackets are width and height or a corner."""
    form, boxes = config.format, np.asarray(getattr(table, "boxes"))  # noqa: B009 - of tables of boxes
    is_open = isinstance(form.boxes, str) and form.box_keys is None and form.box_string is None
    if not is_open or form.layout == "cxcywh" or form.fuse_readers is not None or not len(boxes):
        return {}, []
    first, last = boxes[:, :2], boxes[:, 2:]
    written = last - first if form.layout == "xywh" else last
    if form.layout == "xyxy" or (written <= first).any():  # no corner lies before another
        return {}, []
    if _share_outside(config, table, first + written) > LEAST_OUT:
        line = "warning: found format.layout: xywh, but boxes are inside their images only by format.layout: xyxy"
        return {"layout": "xyxy", "submission": {"layout": "xyxy"}}, [line]
    return {}, [
        "boxes are read as x, y, width, height: format.layout: xywh is assumed, as the numbers could be two corners, "
        "too; look at them on images: train CONFIG --preview"
    ]


def _share_outside(config: TaskConfig, table: Table, ends: np.ndarray) -> float:
    """Return the share of boxes, of some images, whose ends (boxes, 2) lie outside."""
    starts = np.asarray(getattr(table, "starts"))  # noqa: B009
    filled = np.flatnonzero(np.diff(starts))
    is_outside = list[np.ndarray]()
    for index in filled[spread(len(filled), MOST_IMAGES)].tolist():
        try:
            height, width = train_source(config, table.image_ids[index]).read_size()
        except CompetitionError:  # told elsewhere
            continue
        sides = np.array([1, 1] if config.format.units == "shares" else [width, height])
        own = ends[starts[index] : starts[index + 1]] > FARTHEST_OUT * sides
        is_outside.append(np.any(own, axis=1))
    return float(np.concatenate(is_outside).mean()) if is_outside else 0.0

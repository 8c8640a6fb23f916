"""How boxes are drawn, told and compared with the truth, by hand."""

import numpy as np
import pytest
from competition.tasks.detection.outcome import outcome
from competition.tasks.detection.picture import caption, draw, parts
from competition.tasks.detection.table import DetectionTable

RED, BLUE = (255, 0, 0), (0, 0, 255)
Corners = tuple[float, float, float, float]


def boxes(*corners: Corners, labels: tuple[int, ...] | None = None, scores: tuple[float, ...] | None = None) -> dict:
    """Return an answer, or without scores a truth."""
    found = {
        "bboxes": np.array(corners, dtype=np.float32).reshape(-1, 4),
        "labels": np.array(labels or [0] * len(corners), dtype=np.int64),
    }
    return found if scores is None else {**found, "scores": np.array(scores, dtype=np.float32)}


def reach(drawn: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is not black."""
    rows, columns = np.nonzero(drawn)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_boxes_are_drawn_where_they_are_on_a_picture_of_another_size() -> None:
    picture = np.zeros((80, 160, 3), dtype=np.uint8)
    draw(picture, boxes((20, 10, 40, 30), (60, 2, 78, 20), labels=(0, 1)), 40, 80, [RED, BLUE])
    assert reach(picture[:, :, 0]) == pytest.approx((40, 20, 79, 59), abs=2)
    assert reach(picture[:, :, 2]) == pytest.approx((120, 4, 155, 39), abs=2)


def test_of_many_unsure_boxes_the_sure_ones_are_shown_or_else_the_best() -> None:
    here, there = (0, 0, 10, 10), (20, 20, 30, 30)
    assert caption(boxes(here, there, there, scores=(0.9, 0.8, 0.1)), ("cell",)).startswith("cell 2 ")
    assert caption(boxes(here, there, scores=(0.2, 0.1)), ("cell",)).startswith("cell 1 ")
    assert caption(boxes(scores=()), ("cell",)) == "no box"
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    draw(picture, boxes(here, there, scores=(0.2, 0.1)), 40, 40, [RED])
    assert not picture[15:].any()
    assert picture.any()


def test_parts_are_boxes_as_they_are_written_also_outside_of_the_image() -> None:
    written = boxes((0, 0, 20, 10), (90, 0, 110, 10), (5, 5, 5, 9))
    table = DetectionTable(
        image_ids=np.array(["a"], dtype=object),
        classes=("cell",),
        lines=np.array([2]),
        boxes=written["bboxes"],
        labels=written["labels"],
        starts=np.array([0, 3]),
    )
    whole, half, flat = parts(table, 0, table.target(0, 50, 100), 50, 100)
    assert (whole.area, whole.elongation, whole.outside) == (200 / 5000, 2, 0)
    assert (half.area, half.outside) == (200 / 5000, 0.5)
    assert (flat.area, flat.outside) == (0, 1)


def test_an_outcome_is_the_average_precision_of_the_image() -> None:
    here, there, wrong = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)
    found = outcome({}, boxes(here, wrong, there, scores=(0.9, 0.8, 0.5)), boxes(here, there), 1)
    assert found.score == pytest.approx((1 + 2 / 3) / 2)
    assert found.too_much == pytest.approx(0.8)
    assert found.too_little == pytest.approx(2 - 0.9 - 0.5)
    assert found.hits.tolist() == [True, False, True]
    assert found.num_true.tolist() == [2]
    assert outcome({}, boxes(scores=()), boxes(), 1).score == 1
    assert outcome({}, boxes(here, scores=(0.7,)), boxes(), 1).score == pytest.approx(0.3)
    assert outcome({}, boxes(scores=()), boxes(here), 1).score == 0

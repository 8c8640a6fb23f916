"""How masks are drawn, taken apart and compared with the truth, by hand."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from competition.config.loading import validate
from competition.config.settings import with_decode
from competition.tasks.segmentation.decode import decode
from competition.tasks.segmentation.outcome import outcome, threshold_names
from competition.tasks.segmentation.picture import caption, draw, parts
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.segmentation.table import read_table

only_here = pytest.mark.parametrize("task", ["segmentation"], indirect=True)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def mask(*corners: tuple[int, int, int, int], size: tuple[int, int] = (40, 80), classes: int = 1) -> np.ndarray:
    """Return (height, width, classes) with rectangles left, top, right, bottom, the first of the first class ..."""
    drawn = np.zeros((*size, classes), dtype=np.uint8)
    for number, (left, top, right, bottom) in enumerate(corners):
        drawn[top:bottom, left:right, number % classes] = 1
    return drawn


def test_a_mask_is_drawn_where_it_is_on_a_picture_of_another_size() -> None:
    picture = np.zeros((80, 160, 3), dtype=np.uint8)
    draw(picture, {"mask": mask((20, 10, 40, 30), (60, 0, 80, 20), classes=2)}, 40, 80, [RED, BLUE])
    is_red, is_blue = picture[:, :, 0] > 0, picture[:, :, 2] > 0
    for found, (left, top, right, bottom) in ((is_red, (40, 20, 80, 60)), (is_blue, (120, 0, 160, 40))):
        rows, columns = np.nonzero(found)
        assert np.abs([columns.min() - left, rows.min() - top, columns.max() - right, rows.max() - bottom]).max() <= 3


def test_the_one_threshold_of_the_curve_rules_a_mask_whose_thresholds_were_tuned_apart() -> None:
    given = {"threshold": 0.3, "bottom_threshold": 0.6}
    tuned = validate({"name": "t", "task": "segmentation", "decode": given}, {}, "test")
    assert isinstance(tuned, TaskConfig)
    ramp = {"probabilities": np.linspace(0, 1, 200, dtype=np.float32).reshape(1, 10, 20)}
    curve = [with_decode(tuned, dict.fromkeys(threshold_names(tuned), cut)) for cut in (0.2, 0.5, 0.8)]
    pixels = [int(decode(ramp, 10, 20, config)["mask"].sum()) for config in curve]
    assert pixels == [160, 100, 40]


def test_a_mask_of_few_pixels_is_still_seen_on_a_small_picture() -> None:
    picture = np.zeros((100, 100, 3), dtype=np.uint8)
    draw(picture, {"mask": mask((500, 500, 505, 505), size=(1000, 1000))}, 1000, 1000, [RED])
    assert picture[48:53, 48:53, 0].any()
    assert not picture[:40].any()


@only_here
def test_connected_parts_are_told_with_their_sizes(sample: Path, task: str) -> None:
    table = read_table(validate({"name": "t", "task": task, "data": {"dir": str(sample)}}, {}, "test"))
    target = {"mask": mask((0, 0, 8, 4), (50, 10, 60, 12))}
    first, second = sorted(parts(table, 0, target, 40, 80), key=lambda part: -part.area)
    assert (first.area, first.elongation) == (32 / 3200, 2)
    assert (second.area, second.elongation) == (20 / 3200, 5)
    assert parts(table, 0, {"mask": mask()}, 40, 80) == []


def test_the_caption_says_shares_the_largest_first() -> None:
    assert caption({"mask": mask((0, 0, 8, 4), (0, 0, 8, 20), classes=2)}, ("cell", "edge")) == "edge 5 %, cell 1 %"
    assert caption({"mask": mask()}, ("cell",)) == "no mask"


def test_an_outcome_is_the_dice_of_the_image_and_the_pixels_that_are_wrong() -> None:
    true, said = mask((0, 0, 10, 10)), mask((0, 0, 10, 5), (20, 0, 22, 5))
    probabilities = {"probabilities": said.transpose(2, 0, 1).astype(np.float16)}
    found = outcome(probabilities, {"mask": said}, {"mask": true}, 1)
    assert found.score == pytest.approx(2 * 50 / (60 + 100))
    assert (found.too_much, found.too_little) == (10 / 3200, 50 / 3200)
    right = outcome(probabilities, {"mask": true}, {"mask": true}, 1)
    assert (right.score, right.too_much, right.too_little) == (1, 0, 0)
    assert outcome(probabilities, {"mask": mask()}, {"mask": mask()}, 1).score == 1


@only_here
def test_a_fault_in_a_mask_leaves_the_page_and_every_fault_told(
    data_dir: Path, words: list[str], tmp_path: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    lines = (data_dir / "train.csv").read_text().splitlines()
    image_id, class_id, _ = lines[1].split(",")
    (data_dir / "train.csv").write_text("\n".join([lines[0], f"{image_id},{class_id},5 2 9", *lines[2:], ""]))
    next((data_dir / "test_images").iterdir()).unlink()
    done = command("check", *words, "name=seen")
    assert len(done.stderr.splitlines()) == 2
    assert "line 2: rle" in done.stderr
    assert "line 2: rle" in (tmp_path / "outputs/seen/check.html").read_text()

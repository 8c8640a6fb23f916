"""The search for thresholds finds the best of the whole grid, and at what cost."""

from functools import partial
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest

from competition.config.settings import Config
from competition.tasks.contract import Prediction, Target
from competition.tasks.segmentation.decode import decode
from competition.tasks.segmentation.score import OBJECT_METRICS, scores
from competition.tasks.segmentation.score import evidence as evidence_for
from competition.tasks.segmentation.settings import SegmentationDecode, SegmentationFormat, TaskConfig
from competition.tasks.segmentation.tuning import CoordinateSearch, CountSearch, regression_sample, search

evidence = partial(evidence_for, metrics=OBJECT_METRICS)

SIZE = (40, 56)
COUNTED = ("dice", "iou", "f05", "f2", "dice_positive", "dice_negative", "tgs", "global_dice")


class Stored:
    """Made-up predictions: blurred, noisy masks, some of images without any."""

    def __init__(self, num_images: int, num_classes: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.truths, self.predictions = [], []
        self.reads = self.scorings = 0
        for _ in range(num_images):
            truth = np.zeros((*SIZE, num_classes), np.uint8)
            maps = []
            for k in range(num_classes):
                layer = np.zeros(SIZE, np.uint8)
                if rng.random() < 0.6:
                    cv2.circle(layer, (int(rng.integers(56)), int(rng.integers(40))), int(rng.integers(4, 14)), 1, -1)
                truth[:, :, k] = layer
                noise = cv2.GaussianBlur(rng.standard_normal(SIZE).astype(np.float32), (0, 0), 2)
                blurred = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), 3)
                maps.append(cv2.resize(np.clip(blurred * 0.7 + noise * 0.9, 0, 1), (28, 20)))
            self.truths.append({"mask": truth})
            self.predictions.append({"probabilities": np.stack(maps).astype(np.float16)})

    def __len__(self) -> int:
        return len(self.truths)

    def prediction(self, index: int) -> Prediction:
        self.reads += 1
        return self.predictions[index]

    def truth(self, index: int) -> Target:
        return self.truths[index]

    def size(self, index: int) -> tuple[int, int]:
        return SIZE

    def score(self, config: Config, rows: np.ndarray) -> float:
        assert isinstance(config, TaskConfig)
        self.scorings += 1
        found = [evidence(decode(self.predictions[i], *SIZE, config), self.truths[i]) for i in rows]
        return scores(found, config.metrics[:1], self.truths[0]["mask"].shape[-1])[config.metrics[0]]


def config(metric: str, **sections: Any) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "task": "segmentation", "metrics": [metric], **sections})


def score(stored: Stored, made: TaskConfig, rows: np.ndarray, **found: Any) -> float:
    changed = made.model_copy(update={"decode": SegmentationDecode.model_validate(found)})
    return stored.score(changed, rows)


@pytest.mark.parametrize("metric", COUNTED)
def test_the_best_of_the_whole_grid_is_found(metric: str) -> None:
    stored, made = Stored(9, 1), config(metric)
    searched = CountSearch(made, stored, 1, thresholds=np.array([0.2, 0.35, 0.5, 0.65, 0.8]))
    searched.areas = np.array([0, 20, 60, 120, 240, 400])
    rows = np.arange(9)
    grid = [
        {"threshold": top, "min_area": area, "bottom_threshold": bottom}
        for top, area, bottom in product(
            searched.thresholds.tolist(), searched.areas.tolist(), searched.thresholds.tolist()
        )
        if bottom <= top
    ]
    best = max(score(stored, made, rows, **settings) for settings in grid)
    (cut,) = searched._cuts(rows)
    found = score(stored, made, rows, threshold=cut.top, min_area=cut.min_area, bottom_threshold=cut.bottom)
    assert found == pytest.approx(best, abs=1e-9)
    small = max(
        score(
            stored, made, rows, threshold=cut.top, min_area=cut.min_area, bottom_threshold=cut.bottom, min_component=c
        )
        for c in searched.areas.tolist()
    )
    assert score(stored, made, rows, **searched.best(rows)) == pytest.approx(small, abs=1e-9)
    assert small >= found


@pytest.mark.parametrize("metric", ["dice", "global_dice"])
def test_four_classes_are_tuned_together_by_reading_each_prediction_twice(metric: str) -> None:
    stored, made = Stored(30, 4, seed=1), config(metric)
    searched = search(made, stored, 4)
    rows = np.arange(30)
    found = searched.best(rows)
    # Far more combinations than 2800 a class, at the cost of two evaluations instead of 84.
    assert stored.reads == 2 * 30
    assert stored.scorings == 0
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, 4)
    tuned = score(stored, made, rows, **found)
    assert tuned > score(stored, made, rows) + 0.02


def test_only_the_rows_asked_for_count() -> None:
    stored, made = Stored(20, 2, seed=2), config("dice")
    searched = search(made, stored, 2)
    rows = np.arange(0, 20, 2)
    alone = Stored(20, 2, seed=2)
    alone.truths, alone.predictions = alone.truths[::2], alone.predictions[::2]
    assert searched.best(rows) == search(made, alone, 2).best(np.arange(10))


def test_masks_are_tuned_at_the_size_they_are_handed_in_at() -> None:
    form = SegmentationFormat.model_validate({"size": (20, 28)})
    stored, made = Stored(12, 1, seed=3), config("dice").model_copy(update={"format": form})
    found = search(made, stored, 1).best(np.arange(12))
    assert score(stored, made, np.arange(12), **found) >= score(stored, made, np.arange(12))


def test_without_a_mask_anywhere_nothing_breaks() -> None:
    stored = Stored(4, 1)
    stored.truths = [{"mask": np.zeros_like(truth["mask"])} for truth in stored.truths]
    for metric in COUNTED:
        made = config(metric)
        assert score(stored, made, np.arange(4), **search(made, stored, 1).best(np.arange(4))) in (0, 1)


@pytest.mark.parametrize("metric", ["dsb2018", "dice"])
def test_other_metrics_are_searched_within_84_scorings(metric: str) -> None:
    stored, made = Stored(8, 4, seed=4), config(metric)
    rows = np.arange(8)
    searched = CoordinateSearch(made, stored, 4)
    found = searched.best(rows)
    assert 0 < stored.scorings <= 84
    assert score(stored, made, rows, **found) > score(stored, made, rows)
    assert isinstance(search(config("dsb2018"), stored, 4), CoordinateSearch)
    assert isinstance(search(config("dice", host_metric="host.py"), stored, 4), CoordinateSearch)


def test_weights_of_models_are_found_on_some_pixels_of_an_image() -> None:
    stored = Stored(12, 3, seed=5)
    mask = [truth["mask"].transpose(2, 0, 1) for truth in stored.truths]
    good = [{"probabilities": np.stack([cv2.resize(k.astype(np.float32), (28, 20)) for k in one])} for one in mask]
    bad = [{"probabilities": np.full((3, 10, 14), 0.5, np.float16)} for _ in mask]
    parts = [
        regression_sample(pair, truth, seed=i)
        for i, (*pair, truth) in enumerate(zip(good, bad, stored.truths, strict=True))
    ]
    models, truth = (np.concatenate(part) for part in zip(*(part for part in parts if part), strict=True))
    assert models.shape == (12 * 400, 2)
    assert set(np.unique(truth)) == {0, 1}
    weights = np.linalg.lstsq(models, truth, rcond=None)[0]
    assert weights == pytest.approx([1, 0], abs=0.1)
    again = regression_sample([good[0], bad[0]], stored.truths[0], seed=0)
    assert again is not None
    np.testing.assert_array_equal(again[0], models[:400])


@pytest.mark.parametrize("metric", ["dice", "global_dice"])
def test_what_a_head_says_of_the_image_is_cut_where_it_scores_best(metric: str) -> None:
    stored, made, rows = with_presence(with_decoys(24, 2)), config(metric), np.arange(24)
    found = search(made, stored, 2).best(rows)
    masks = {name: value for name, value in found.items() if name != "presence_threshold"}
    best = score(stored, made, rows, **found)
    assert best > score(stored, made, rows, **search(made, with_decoys(24, 2), 2).best(rows)) + 0.02
    for others in product(np.linspace(0, 0.9, 10), repeat=2):
        assert best >= score(stored, made, rows, **masks, presence_threshold=list(others)) - 1e-9


def test_it_is_found_for_other_metrics_and_not_looked_for_where_no_head_tells() -> None:
    made, rows = config("dsb2018"), np.arange(12)
    stored = with_presence(with_decoys(12, 1))
    found = search(made, stored, 1).best(rows)
    assert 0 < found["presence_threshold"][0] < 1
    plain = with_decoys(12, 1)
    without = search(made, plain, 1).best(rows)
    assert "presence_threshold" not in without
    assert "presence_threshold" not in search(config("dice"), plain, 1).best(rows)
    assert score(stored, made, rows, **found) > score(plain, made, rows, **without)


def with_decoys(num_images: int, num_classes: int) -> Stored:
    """Return predictions in which half of the images without a class look as if they had it."""
    stored = Stored(num_images, num_classes, seed=6)
    for k in range(num_classes):
        has_class = [bool(truth["mask"][:, :, k].any()) for truth in stored.truths]
        like = stored.predictions[has_class.index(True)]["probabilities"][k]
        for index in [index for index, found in enumerate(has_class) if not found][::2]:
            stored.predictions[index]["probabilities"][k] = like
    return stored


def with_presence(stored: Stored) -> Stored:
    """Add what a head says that tells images with a class from others: over and under a half."""
    rng = np.random.default_rng(0)
    for truth, prediction in zip(stored.truths, stored.predictions, strict=True):
        has_class = truth["mask"].any(axis=(0, 1))
        prediction["presence"] = (has_class / 2 + rng.uniform(0.05, 0.4, len(has_class))).astype(np.float32)
    return stored

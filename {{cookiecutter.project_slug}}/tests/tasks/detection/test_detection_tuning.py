"""Tuning of boxes: finds cuts that are there to be found, never loses, and scores as the real decoding does."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config.settings import Config
from competition.tasks.contract import Prediction, Target
from competition.tasks.detection.decode import average, decode
from competition.tasks.detection.score import evidence as evidence_for
from competition.tasks.detection.score import scores
from competition.tasks.detection.settings import DetectionDecode, TaskConfig
from competition.tasks.detection.tuning import LookedUp, Point, regression_sample, search

evidence = partial(evidence_for, metrics=())

NUM_CLASSES = 2


class Images:
    """Images whose true boxes are found with a score over .6 (class 0) or .3 (class 1), beside false ones under it."""

    def __init__(self, number: int, seed: int = 0, *, with_presence: bool = False) -> None:
        self.asked = 0
        self._all = [self._one(np.random.default_rng([seed, i])) for i in range(number)]
        for i, (prediction, truth) in enumerate(self._all if with_presence else ()):
            has_class = np.isin(range(NUM_CLASSES), truth["labels"])
            unsure = np.random.default_rng([seed, i, 1]).uniform(0, 0.6, NUM_CLASSES)
            prediction["presence"] = (0.4 * has_class + unsure).astype(np.float32)

    def _one(self, rng: np.random.Generator) -> tuple[Prediction, Target]:
        corner = np.stack([np.arange(4) * 50.0, rng.uniform(0, 40, 4)], axis=1)
        boxes = np.concatenate([corner, corner + rng.uniform(20, 40, (4, 2))], axis=1).astype(np.float32)
        labels, is_true = rng.integers(0, NUM_CLASSES, 4), rng.random(4) < 0.6
        least = np.where(labels == 0, 0.6, 0.3)
        found = np.where(is_true, rng.uniform(least, 1), rng.uniform(0.05, least))
        again = boxes + rng.uniform(-3, 3, boxes.shape).astype(np.float32)  # the same objects, a bit beside and unsure
        prediction = {
            "boxes": np.concatenate([boxes, again]),
            "scores": np.concatenate([found, found * 0.95]).astype(np.float32),
            "labels": np.concatenate([labels, labels]),
            "model": np.zeros(8, dtype=np.int16),
            "model_weights": np.ones(1, dtype=np.float32),
        }
        return prediction, {"bboxes": boxes[is_true], "labels": labels[is_true]}

    def __len__(self) -> int:
        return len(self._all)

    def prediction(self, index: int) -> Prediction:
        return self._all[index][0]

    def truth(self, index: int) -> Target:
        return self._all[index][1]

    def size(self, index: int) -> tuple[int, int]:
        return 100, 250

    def score(self, config: Config, rows: np.ndarray) -> float:
        self.asked += 1
        assert isinstance(config, TaskConfig)
        seen = [evidence(decode(self.prediction(i), *self.size(i), config), self.truth(i)) for i in rows]
        metric = "f1" if config.host_metric else config.metrics[0]
        return scores(seen, [metric], NUM_CLASSES)[metric]


def config(metric: str, **values: Any) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "task": "detection", "metrics": [metric], **values})


def with_decode(made: TaskConfig, decode: dict[str, Any]) -> TaskConfig:
    return made.model_copy(update={"decode": DetectionDecode.model_validate(decode)})


@pytest.mark.parametrize("metric", ["f1", "f2", "wheat", "rsna"])
def test_each_class_gets_the_cut_that_tells_right_from_wrong(metric: str) -> None:
    images, made = Images(60), config(metric)
    found = search(made, images, NUM_CLASSES).best(np.arange(40))
    first, second = found["min_score"]
    assert 0.5 < first < 0.7
    assert 0.2 < second < 0.4
    unseen = np.arange(40, 60)
    assert images.score(with_decode(made, found), unseen) > max(0.9, images.score(made, unseen) + 0.1)


def test_a_mean_average_precision_keeps_a_low_cut() -> None:
    images, made = Images(20), config("map50", decode=DetectionDecode(min_score=0.4, iou=0.95))
    found = search(made, images, NUM_CLASSES).best(np.arange(20))
    assert found["min_score"] == 0.05
    assert images.score(with_decode(made, found), np.arange(20)) > images.score(made, np.arange(20))


def test_a_hosts_metric_is_asked_and_nothing_else() -> None:
    images = Images(30)
    made = config("map50").model_copy(update={"host_metric": Path("metric.py")})
    found = search(made, images, NUM_CLASSES).best(np.arange(30))
    assert 0 < images.asked < 100
    assert images.score(with_decode(made, found), np.arange(30)) > 0.9


@given(
    st.integers(0, 2**20),
    st.sampled_from(["f1", "f2", "wheat", "rsna", "map50", "map", "vinbigdata"]),
    st.sampled_from(["nms", "soft_nms", "wbf"]),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_what_is_looked_up_scores_as_the_decoding_itself(seed: int, metric: str, join: str, agnostic: bool) -> None:
    rng = np.random.default_rng(seed)
    images = Images(6, seed, with_presence=seed % 2 == 0)
    made = config(
        metric,
        loss={"auxiliary": 1},
        decode=DetectionDecode.model_validate({"join": join, "max_boxes": int(rng.integers(1, 9))}),
    )
    objective = LookedUp(made, images, NUM_CLASSES, 0.02)
    for _ in range(3):
        cuts = tuple(rng.uniform(0.02, 0.9, NUM_CLASSES).round(3).tolist())
        point = Point(cuts, float(rng.choice([0.3, 0.5, 0.8])), agnostic)
        if seed % 2 == 0:
            least = tuple(rng.uniform(0, 0.7, NUM_CLASSES).round(3).tolist())
            point = replace(point, presence=least, is_scaled=bool(rng.random() < 0.5))
        rows = np.flatnonzero(rng.random(6) < 0.7)
        if len(rows):
            settled = with_decode(made, made.decode.model_dump() | point.settings())
            assert objective(point, rows) == pytest.approx(images.score(settled, rows))


@given(st.integers(0, 2**20), st.sampled_from(["nms", "wbf"]))
@settings(max_examples=5, deadline=None)
def test_the_search_finds_what_decoding_at_every_point_finds(seed: int, join: str) -> None:
    images = Images(6, seed, with_presence=seed % 2 == 0)
    made = config("f1", loss={"auxiliary": 1}, decode={"join": join})
    plain = made.model_copy(update={"host_metric": Path("metric.py")})  # this file's `score` decodes each time
    rows = np.arange(6)
    assert search(made, images, NUM_CLASSES).best(rows) == search(plain, images, NUM_CLASSES).best(rows)


@pytest.mark.parametrize("metric", ["f1", "map50"])
def test_what_a_head_says_of_the_image_tells_boxes_apart_that_scores_do_not(metric: str) -> None:
    images, made = Images(60, with_presence=True), config(metric, loss={"auxiliary": 1})
    for index in range(0, 60, 2):  # every other image has nothing, and boxes that look like those of the others
        nothing, truth = images.prediction(index), images.truth(index)
        nothing |= images.prediction(index + 1) | {"presence": np.array([0.2, 0.3], np.float32)}
        truth |= {key: values[:0] for key, values in truth.items()}
    found = search(made, images, NUM_CLASSES).best(np.arange(40))
    unseen, plain = np.arange(40, 60), found | {"presence_threshold": 0, "scale_by_presence": False}
    assert images.score(with_decode(made, found), unseen) > images.score(with_decode(made, plain), unseen) + 0.1


def test_the_configs_own_settings_stay_where_nothing_is_better() -> None:
    images = Images(3)
    perfect = DetectionDecode(min_score=[0.6, 0.3], iou=0.5)
    made = config("f1", decode=perfect)
    assert images.score(made, np.arange(3)) == 1
    assert search(made, images, NUM_CLASSES).best(np.arange(3)) == {
        "min_score": [0.6, 0.3], "iou": 0.5, "class_agnostic": False
    }  # fmt: skip


def test_boxes_give_no_numbers_to_find_weights_by() -> None:
    images = Images(1)
    joined = average([images.prediction(0)] * 2, config("f1"))
    assert regression_sample([joined, joined], images.truth(0), 0) is None

"""Tuning: what is looked up is what decoding scores, and what it finds is better than what was there."""

from collections.abc import Sequence

import numpy as np
import pytest

from competition.config.settings import Config, with_decode
from competition.tasks.contract import Prediction, Target
from competition.tasks.points.decode import decode
from competition.tasks.points.score import evidence, scores
from competition.tasks.points.settings import PointsDecode, TaskConfig
from competition.tasks.points.tuning import LookedUp, Point, regression_sample, search

SIZE = (64, 64)
KNOWN = {"reach": np.array([5.0, 5.0]), "size": np.array(SIZE)}


class Images:
    """Heatmaps of true points and lower ones of nothing, beside some of the true ones too."""

    def __init__(self, number: int = 12) -> None:
        rng = np.random.default_rng(1)
        self.heatmaps, self.truths = list[np.ndarray](), list[Target]()
        for _ in range(number):
            heatmap = rng.uniform(0, 0.02, (2, 16, 16))
            cells, labels = rng.integers(1, 15, (3, 2)), rng.integers(2, size=3)
            for (x, y), label in zip(cells, labels, strict=True):
                heatmap[label, y, x] = rng.uniform(0.3, 0.6)
                heatmap[label, y - 1, min(x + 2, 15)] = rng.uniform(0.2, 0.4)  # again, beside it
            for x, y in rng.integers(0, 16, (4, 2)):
                heatmap[0, y, x] = max(rng.uniform(0.05, 0.25), heatmap[0, y, x])
            self.heatmaps.append(heatmap.astype(np.float16))
            points = (cells + 0.5) * 4
            self.truths.append({"keypoints": points.astype(np.float32), "labels": labels, **KNOWN})

    def __len__(self) -> int:
        return len(self.heatmaps)

    def prediction(self, index: int) -> Prediction:
        return {"heatmap": self.heatmaps[index]}

    def truth(self, index: int) -> Target:
        return self.truths[index]

    def size(self, index: int) -> tuple[int, int]:
        return SIZE

    def score(self, config: Config, rows: Sequence[int] | np.ndarray) -> float:
        assert isinstance(config, TaskConfig)
        seen = [evidence(decode(self.prediction(i), *SIZE, config), self.truths[i], ()) for i in rows]
        return scores(seen, config.metrics[:1], 2)[config.metrics[0]]


@pytest.mark.parametrize("metric", ["f1", "f4_mean", "ap", "precision"])
@pytest.mark.parametrize("most", [3, 1000])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_what_is_looked_up_is_what_decoding_scores(metric: str, most: int, *, class_agnostic: bool) -> None:
    decode = PointsDecode(max_points=most, class_agnostic=class_agnostic)
    config = TaskConfig(name="t", task="points", metrics=[metric], decode=decode)
    images, rows = Images(), np.array([0, 3, 4, 9])
    look = LookedUp(config, images, 2, 0.02)
    for point in (Point((0.1, 0.3), 0.0), Point((0.25, 0.25), 9.0), Point((0.9, 0.02), 14.0), Point((0.5, 0.1), 20.0)):
        found = with_decode(config, point.settings())
        assert look(point, rows) == pytest.approx(images.score(found, rows))


def test_a_cut_and_a_distance_are_found_that_score_better() -> None:
    config = TaskConfig(name="t", task="points", decode=PointsDecode(min_score=0.05))
    images, rows = Images(), np.arange(12)
    best = search(config, images, 2).best(rows)
    before, after = images.score(config, rows), images.score(with_decode(config, best), rows)
    assert before < 0.6
    assert after > before + 0.2
    assert best["min_distance"] > 0


def test_cells_that_weights_of_blends_are_found_on_tell_where_points_are() -> None:
    images = Images()
    values, truth = regression_sample([images.prediction(0), images.prediction(1)], images.truth(0), 3) or ((), ())
    assert np.shape(values) == (len(truth), 2)
    assert set(np.unique(truth)) == {0.0, 1.0}
    rows = np.array(values)[:, 0]
    assert rows[np.array(truth) == 1].min() >= 0.2
    again, _ = regression_sample([images.prediction(0), images.prediction(1)], images.truth(0), 3) or ((), ())
    np.testing.assert_array_equal(values, again)

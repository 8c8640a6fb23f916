"""Every shipped config is scored first by its competition's own metric: held against graders by the definition.

These decide by hand, pixel by pixel and object by object, on whole sets of images.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from competition.config.data_settings import Data
from competition.config.loading import complete, format_presets, load_config
from competition.data.augmentation import ImageAugmentation
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target
from competition.tasks.segmentation.decode import decode
from competition.tasks.segmentation.score import evidence, scores
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.segmentation.table import read_table

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # said, true and probabilities (h, w, classes) of an image
Grader = Callable[[list[Pair]], float]
THRESHOLDS = range(50, 100, 5)  # percent


def layers(pairs: list[Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(said[:, :, k] > 0, true[:, :, k] > 0) for said, true, _ in pairs for k in range(true.shape[2])]


def dice_of(said: np.ndarray, true: np.ndarray, both_empty: float = 1.0) -> float:
    total = said.sum() + true.sum()
    return 2 * (said & true).sum() / total if total else both_empty


def mean_dice(pairs: list[Pair]) -> float:
    return float(np.mean([dice_of(*pair) for pair in layers(pairs)]))


def global_dice(pairs: list[Pair]) -> float:
    each = layers(pairs)
    return float(2 * sum((a & b).sum() for a, b in each) / sum(a.sum() + b.sum() for a, b in each))


def objects(mask: np.ndarray) -> list[np.ndarray]:
    number, labels = cv2.connectedComponents(mask.astype(np.uint8))
    return [labels == one for one in range(1, number)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def of_objects(pairs: list[Pair], value: Callable[[int, int, int], float]) -> float:
    values = []
    for said, true in ((objects(a), objects(b)) for a, b in layers(pairs)):
        hits = [sum(any(100 * iou(a, b) > cut for a in said) for b in true) for cut in THRESHOLDS]
        values.append(np.mean([value(hit, len(said) - hit, len(true) - hit) for hit in hits]))
    return float(np.mean(values))


def mean_precision(pairs: list[Pair]) -> float:
    return of_objects(pairs, lambda tp, fp, fn: tp / (tp + fp + fn) if tp + fp + fn else 1.0)


def mean_f2(pairs: list[Pair]) -> float:
    return of_objects(pairs, lambda tp, fp, fn: 5 * tp / (5 * tp + 4 * fn + fp) if tp + fp + fn else 1.0)


def average_precision(pairs: list[Pair]) -> float:
    """Mean over classes of the area under the curve of objects by confidence, at IoU .6; precision does not rise."""
    areas = []
    for k in range(pairs[0][1].shape[2]):
        found, number = [], 0
        for said, true, probabilities in pairs:
            others = objects(true[:, :, k])
            number += len(others)
            for one in objects(said[:, :, k]):
                hit = any(iou(one, other) >= 0.6 for other in others)
                found.append((probabilities[:, :, k][one].astype(float).mean(), hit))
        hits = [hit for _, hit in sorted(found, key=lambda each: -each[0])]
        precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
        areas.append(sum(max(precisions[n:]) for n, hit in enumerate(hits) if hit) / number)
    return float(np.mean(areas))


def madison(pairs: list[Pair]) -> float:
    """The images are slices, four a volume. .4 Dice, both empty left out; .6 one minus the Hausdorff distance."""
    overlap = np.nanmean([dice_of(*pair, np.nan) for pair in layers(pairs)])
    distances = []
    for first in range(0, len(pairs), 4):
        said, true = (np.stack([pair[part].any(axis=2) for pair in pairs[first : first + 4]]) for part in (0, 1))
        a, b = (np.argwhere(volume) / volume.shape for volume in (said, true))
        if not len(a) and not len(b):
            continue
        if not len(a) or not len(b) or len(a) > 10 * len(b):
            distances.append(1.0)
        else:
            apart = cdist(a, b)
            distances.append(max(apart.min(axis=1).max(), apart.min(axis=0).max()) / 3**0.5)
    return float(0.4 * overlap + 0.6 * (1 - np.mean(distances)))


def salt_precision(pairs: list[Pair]) -> float:
    """Share of the thresholds that the one mask is over; where there is nothing, whether nothing is said."""
    each = layers(pairs)
    return float(
        np.mean([np.mean([100 * iou(a, b) > cut for cut in THRESHOLDS]) if b.any() else not a.any() for a, b in each])
    )


def mean_f_half(pairs: list[Pair]) -> float:
    """1.25 P R / (0.25 P + R) of a fragment's pixels; here also of fragments without ink, which there are none of."""
    each = []
    for a, b in layers(pairs):
        hits = int((a & b).sum())
        if not hits:
            each.append(float(not a.any() and not b.any()))
            continue
        precision, recall = hits / int(a.sum()), hits / int(b.sum())
        each.append(1.25 * precision * recall / (0.25 * precision + recall))
    return float(np.mean(each))


GRADERS: dict[str, Grader] = {
    "clouds": mean_dice,
    "severstal": mean_dice,
    "hubmap": mean_dice,
    "siim": mean_dice,
    "contrails": global_dice,
    "hubmap2023": average_precision,
    "hpa": average_precision,
    "uw_madison": madison,
    "dsb2018": mean_precision,
    "sartorius": mean_precision,
    "airbus": mean_f2,
    "tgs": salt_precision,
    "vesuvius": mean_f_half,
}
WITHOUT = {"sample", "sennet"}  # whose config says that the host's own file is to score it


def test_every_known_competition_has_a_grader_here() -> None:
    assert set(GRADERS) | WITHOUT == set(format_presets("segmentation"))


def made_up(config: TaskConfig, num_classes: int) -> list[tuple[Target, Target, Pair]]:
    """Return answers, truths and what a grader takes, of images with objects, some found well and some not."""
    rng, each = np.random.default_rng(3), []
    for number in range(12):
        true = np.zeros((24, 20, num_classes), np.uint8)
        probabilities = np.zeros(true.shape, np.float16)
        for k in range(num_classes):
            for top, left in [(1, 1), (1, 11), (13, 1), (13, 11)]:
                height, width, off = [*rng.integers(4, 9, 2).tolist(), int(rng.integers(0, 3))]
                if number not in (5, *range(8, 12)) and rng.random() < 0.6:
                    true[top : top + height, left : left + width, k] = 1
                if rng.random() < 0.6 and number < 9:
                    probabilities[top + off : top + height, left : left + width, k] = rng.uniform(0.8, 1)
        answer = decode({"probabilities": probabilities.transpose(2, 0, 1)}, 24, 20, config)
        place = {"volume": f"v{number // 4}", "slice": f"{number:02d}"}
        each.append((answer, {"mask": true, **place}, (answer["mask"], true, probabilities)))
    return each


@pytest.mark.parametrize("name", GRADERS)
def test_a_config_is_scored_as_its_competition_does(name: str) -> None:
    config = load_config([CONFIGS / f"segmentation_{name}.yaml"], ["format.size=null"])
    assert isinstance(config, TaskConfig)
    plain = config.model_copy(update={"decode": type(config.decode)()})
    images = made_up(plain, 2)
    metric = config.metrics[0]
    found = scores([evidence(answer, truth, [metric]) for answer, truth, _ in images], [metric], 2)[metric]
    assert found == pytest.approx(GRADERS[name]([pair for _, _, pair in images]))
    perfect = [evidence({**answer, **truth}, truth, [metric]) for answer, truth, _ in images]
    assert 0 < found < scores(perfect, [metric], 2)[metric] == 1


def volumes(folder: Path, ids: list[str], pattern: str = r"case\d+_day\d+") -> TaskConfig:
    (folder / "train.csv").write_text("\n".join(["image_id,class_id,rle", *(f"{one},x,1 3" for one in ids), ""]))
    config = complete("segmentation", {"format": {"volume": pattern}, "metrics": ["uw_madison"]})
    assert isinstance(config, TaskConfig)
    return config.model_copy(update={"data": Data(dir=folder)})


def test_slices_are_put_together_by_their_ids_whatever_their_order(tmp_path: Path) -> None:
    ids = [f"case{c}_day0_slice_{s:04d}" for c in (1, 2) for s in (3, 1, 2)]
    config = volumes(tmp_path, ids)
    table = read_table(config)
    rng = np.random.default_rng(0)
    answers = {one: {"mask": rng.integers(0, 2, (6, 6, 1), dtype=np.uint8)} for one in ids}
    truths = {one: table.target(index, 6, 6) for index, one in enumerate(table.image_ids)}

    def score(order: list[str]) -> float:
        return scores([evidence(answers[one], truths[one], config.metrics) for one in order], config.metrics, 1)[
            "uw_madison"
        ]

    assert score(ids) == score(sorted(ids)) == score(ids[::-1])
    # A volume is told by what the pattern finds: with all slices in one the distance is another.
    together = read_table(volumes(tmp_path, ids, "(case)"))
    assert {together.target(index, 6, 6)["volume"] for index in range(6)} == {"case"}
    with pytest.raises(CompetitionError, match=r"line 2: format\.volume 'day9' finds nothing in image id 'case1_day0"):
        read_table(volumes(tmp_path, ids, "day9"))
    wide = evidence({"mask": np.zeros((6, 8, 1), np.uint8)}, truths[ids[1]], config.metrics)
    with pytest.raises(CompetitionError, match="volume 'case1_day0' has slices of 6 x 6 and 6 x 8 pixels"):
        scores([evidence(answers[ids[0]], truths[ids[0]], config.metrics), wide], config.metrics, 1)


def test_a_slice_is_augmented_though_its_target_names_its_volume(tmp_path: Path) -> None:
    table = read_table(volumes(tmp_path, ["case1_day0_slice_0001"]))
    target, data = table.target(0, 40, 40), Data(image_size=(32, 32))
    image, changed = ImageAugmentation(data, train=True)(np.zeros((40, 40, 3), np.uint8), target, 0)
    assert image.shape == (32, 32, 3)
    assert changed["mask"].shape == (32, 32, 1)
    assert (changed["volume"], changed["slice"]) == ("case1_day0", "case1_day0_slice_0001")


def test_a_metric_of_volumes_needs_to_know_them() -> None:
    with pytest.raises(ValueError, match=r"format\.volume"):
        TaskConfig(name="t", task="segmentation", metrics=["uw_madison"])

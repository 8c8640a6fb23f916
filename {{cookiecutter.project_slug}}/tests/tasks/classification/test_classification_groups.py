"""Images that are answered as one (`format.group`), of some of which an answer is not known; or whose ids are a test
image's, too. What is handed in of a group is what all its images say, and so is what is scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classification_images import Images
from sklearn import metrics

from competition.config.loading import complete
from competition.config.settings import with_decode
from competition.tasks.classification.decode import decode
from competition.tasks.classification.metrics_together import rsna2024
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.table import read_table
from competition.tasks.classification.tuning import search
from competition.tasks.host_metric import score_by_host

GRADES = ("0", "1", "2")
NAMES = ("spinal_a", "spinal_b")
METRICS = ["mean_loss", "spinal_a/log_loss", "spinal_a/accuracy", "rsna2024"]


def config_of(folder: Path, form: Mapping[str, Any], **sections: Any) -> TaskConfig:
    values = {"format": {"group": "{study}", **form}, "data": {"dir": str(folder)}, **sections}
    made = complete("classification", values)
    assert isinstance(made, TaskConfig)
    return made


def write_csv(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.mark.parametrize("join", ["mean", "max"])
def test_a_group_is_scored_by_what_all_its_images_say_and_what_is_known_of_any(tmp_path: Path, join: str) -> None:
    rng = np.random.default_rng(3)
    grade = {f"s{number}": rng.integers(3, size=2) for number in range(12)}
    studies = [f"s{number}" for number in rng.permutation(np.repeat(np.arange(12), 3))]
    rows = [[f"i{k}", one, *np.where(rng.random(2) < 0.5, grade[one].astype(str), "")] for k, one in enumerate(studies)]
    rows = [row for row in rows if row[1] != "s0"] + [["x", "s0", "", "1"]]  # of one nobody knows a grade
    write_csv(tmp_path / "train.csv", "image_id,study,spinal_a,spinal_b", rows)
    targets = {name: {"classes": list(GRADES), "unknown": [""], "metric": "log_loss"} for name in NAMES}
    config = config_of(tmp_path, {"targets": targets, "join": join}, metrics=METRICS)
    table = read_table(config)
    said = [{f"{name}/probabilities": rng.dirichlet([1, 1, 1]).astype(np.float32) for name in NAMES} for _ in rows]
    found = Images(table, said).scores(config, range(len(rows)))

    groups = list(dict.fromkeys(row[1] for row in rows))
    joined, truth = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for place, name in enumerate(NAMES):
        each = [[p[f"{name}/probabilities"] for p, r in zip(said, rows, strict=True) if r[1] == g] for g in groups]
        joined[name] = np.array([np.mean(one, 0) if join == "mean" else np.max(one, 0) for one in each])
        known = [{r[2 + place] for r in rows if r[1] == g and r[2 + place]} for g in groups]
        truth[name] = np.array([int(max(one)) if one else -1 for one in known])
    assert min(truth["spinal_a"]) == -1
    here = truth["spinal_a"] >= 0
    sure = joined["spinal_a"][here] / joined["spinal_a"][here].sum(1, keepdims=True)
    losses = [
        metrics.log_loss(truth[n][truth[n] >= 0], _shares(joined[n][truth[n] >= 0]), labels=[0, 1, 2]) for n in NAMES
    ]
    assert found == pytest.approx(
        {
            "mean_loss": np.mean(losses),
            "spinal_a/log_loss": losses[0],
            "spinal_a/accuracy": np.mean(sure.argmax(1) == truth["spinal_a"][here]),
            "rsna2024": rsna2024(joined, truth),
        },
        rel=1e-5,
    )


def _shares(values: np.ndarray) -> np.ndarray:
    return values / values.sum(axis=1, keepdims=True)


def test_thresholds_are_of_what_all_images_of_a_group_say(tmp_path: Path) -> None:
    # Of each study one image is known, and says the same of all; what tells them apart is what the other says.
    of_others = {0: (0.30, 0.35), 1: (0.70, 0.75)}
    rows, said = [], []
    for number in range(8):
        label = number % 2
        for image, (text, p) in enumerate(((str(label), 0.9), ("", of_others[label][number // 2 % 2]))):
            rows.append([f"{number}{image}", f"s{number}", text, "1"])
            said.append({"a/probabilities": np.array([1 - p, p], np.float32), "b/probabilities": np.array([0.2, 0.8])})
    write_csv(tmp_path / "train.csv", "image_id,study,a,b", rows)
    one = {"classes": ["0", "1"], "unknown": [""], "metric": "accuracy", "hand_in": "label"}
    config = config_of(tmp_path, {"targets": {"a": one, "b": one}}, metrics=["mean", "a/accuracy"])
    table, every = read_table(config), range(len(rows))
    assert Images(table, said).scores(config, every)["a/accuracy"] == 0.5
    found = search(config, Images(table, said), len(table.classes)).best(np.arange(len(rows)))
    assert Images(table, said).scores(with_decode(config, found), every)["a/accuracy"] == 1


HOST = """
def score(solution, submission, row_id_column_name):
    both = solution.merge(submission, on=row_id_column_name)
    assert len(both) == len(solution) == len(submission)
    return float(((both.iloc[:, 1] - both.iloc[:, 2]) ** 2).mean())
"""


def test_a_host_compares_training_images_in_their_own_groups_where_test_images_have_the_same_ids(
    tmp_path: Path,
) -> None:
    write_csv(tmp_path / "train.csv", "image_id,study,label", [(0, "A", 1), (1, "A", 1), (2, "B", 0), (3, "B", 0)])
    write_csv(tmp_path / "test.csv", "image_id,study", [(0, "T1"), (1, "T2"), (2, "T1"), (3, "T2"), (4, "T3")])
    write_csv(tmp_path / "sample_submission.csv", "study,label", [("T1", 0), ("T2", 0), ("T3", 0)])
    (tmp_path / "host.py").write_text(HOST)
    form = {"target": "multi", "train": {"layout": "columns"}, "submission": {"keys": {"study": "{image_id}"}}}
    host = {"file": str(tmp_path / "host.py"), "lower_is_better": True}
    config = config_of(tmp_path, form, host_metric=host, data={"dir": str(tmp_path), "classes": ["label"]})
    table, said = read_table(config), [0.9, 0.7, 0.2, 0.1]
    found = [
        (one, decode({"probabilities": np.array([p], np.float32)}, 9, 9, config))
        for one, p in zip(table.image_ids, said, strict=True)
    ]
    true = [(one, table.target(index, 9, 9)) for index, one in enumerate(table.image_ids)]
    expected = ((1 - 0.8) ** 2 + 0.15**2) / 2
    assert score_by_host(config, table.classes, found, true)["host"] == pytest.approx(expected, rel=1e-5)

"""Labels that nobody knows (`format.unknown`), as CheXpert's -1 and blanks: neither loss nor score look at them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from competition.config.data_settings import Data
from competition.config.loading import complete
from competition.support.errors import CompetitionError
from competition.tasks.classification.dataset import batch_targets, collate_targets, mix_batch, target_tensors
from competition.tasks.classification.kinds.tables import MultiLabelTable
from competition.tasks.classification.loss import image_losses
from competition.tasks.classification.metrics import MULTI
from competition.tasks.classification.outcome import outcome
from competition.tasks.classification.score import constant_answers, evidence, scores
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.table import read_table

COLUMNS = {"target": "multi", "train": {"layout": "columns"}, "unknown": [-1, ""]}


def config(folder: Path, form: dict[str, Any] = COLUMNS, **sections: Any) -> TaskConfig:
    made = complete("classification", {"format": form, **sections})
    assert isinstance(made, TaskConfig)
    return made.model_copy(update={"data": Data(dir=folder)})


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (COLUMNS, "image_id,edema,nodule\na,1.0,-1.0\nb,0.0,1\nc,,0\n"),
        (
            COLUMNS
            | {"train": {"keys": {"id": "{image_id}_{class_id}"}, "layout": "rows"}, "submission": {"layout": "rows"}},
            "id,label\na_edema,1.0\na_nodule,-1.0\nb_edema,0\nb_nodule,1\nc_edema,\nc_nodule,0\n",
        ),
    ],
    ids=["columns", "rows"],
)
def test_unknown_labels_are_read_as_such(tmp_path: Path, form: dict[str, Any], text: str) -> None:
    (tmp_path / "train.csv").write_text(text)
    table = read_table(config(tmp_path, form))
    assert isinstance(table, MultiLabelTable)
    assert table.known is not None
    assert table.known.tolist() == [[True, False], [True, True], [False, True]]
    assert table.labels.tolist() == [[True, False], [False, True], [False, False]]
    assert "unknown, and left out of loss and score: images: edema 1, nodule 1" in table.summary()
    # A blind submission goes by what is known: one of two has edema, one of two a nodule.
    assert constant_answers(table)[1]["probabilities"].tolist() == [0.5, 0.5]


def test_another_value_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image_id,edema\na,1\nb,-2\n")
    with pytest.raises(CompetitionError, match=r"line 3: found '-2'; expected 0 or 1, or what format\.unknown names"):
        read_table(config(tmp_path))
    (tmp_path / "train.csv").write_text("image_id,edema\na,1\nb,-1\n")
    with pytest.raises(CompetitionError, match="line 3: found '-1'"):
        read_table(config(tmp_path, COLUMNS | {"unknown": [""]}))
    with pytest.raises(CompetitionError, match="0 and 1 say that an image has a class or not"):
        config(tmp_path, COLUMNS | {"unknown": [0]})
    with pytest.raises(CompetitionError, match=r"format\.unknown is for format\.target multi"):
        config(tmp_path, {"unknown": [-1]})


@pytest.mark.parametrize(
    "loss", [{"bce": 1}, {"focal": 1}, {"bce": 1, "class_weights": [2, 1, 3], "label_smoothing": 0.1}]
)
def test_the_loss_is_that_of_the_known_labels_alone(tmp_path: Path, loss: dict[str, Any]) -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, known = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], bool), np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
    tensors = [target_tensors({"labels": a, "known": b}) for a, b in zip(labels, known, strict=True)]
    losses = image_losses(nn.Identity(), logits, collate_targets(tensors), config(tmp_path, loss=loss))
    losses.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[~torch.from_numpy(known)] == 0).all()
    assert (logits.grad[torch.from_numpy(known)] != 0).all()
    # As if the first image had two classes only.
    weights = loss.get("class_weights")
    fewer = config(tmp_path, loss=loss | ({"class_weights": weights[:2]} if weights else {}))
    alone = image_losses(nn.Identity(), logits[:1, :2], {"labels": torch.tensor([[1.0, 0.0]])}, fewer)
    assert losses[0].item() == pytest.approx(alone.item())
    assert losses[2].item() == 0


def test_mixed_with_another_image_an_unknown_label_stays_unknown(tmp_path: Path) -> None:
    made = config(tmp_path, mix={"mixup": 1.0})
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    batch = {"image": torch.zeros(2, 3, 4, 4), "labels": labels}
    rngs = [np.random.default_rng(seed) for seed in range(20)]
    mixed = [mix_batch(batch, made, rng)["labels"] for rng in rngs]
    assert any(one[:, 1].isnan().all() for one in mixed)  # partners
    assert all(one[:, 0].isfinite().all() for one in mixed)
    assert [target["labels"].tolist() for target in batch_targets(batch)] == [[1, 0], [0, 1]]


NAMES = ("log_loss", "roc_auc", "macro_f1", "micro_f1", "balanced_accuracy")


def test_scores_are_those_of_scikit_learn_on_what_is_known() -> None:
    rng = np.random.default_rng(0)
    truth, said, known = rng.random((40, 3)) < 0.4, rng.random((40, 3)), rng.random((40, 3)) < 0.7
    truth &= known
    each = [
        evidence({"probabilities": p, "labels": p >= 0.5}, {"labels": y, "known": k}, NAMES)
        for p, y, k in zip(said, truth, known, strict=True)
    ]
    columns = [(truth[here, k], said[here, k]) for k, here in enumerate(known.T)]
    assert scores(each, NAMES, 3) == pytest.approx(
        {
            "log_loss": np.mean([metrics.log_loss(y, p) for y, p in columns]),
            "roc_auc": np.mean([metrics.roc_auc_score(y, p) for y, p in columns]),
            "macro_f1": np.mean([metrics.f1_score(y, p >= 0.5) for y, p in columns]),
            "micro_f1": metrics.f1_score(truth[known], said[known] >= 0.5),
            "balanced_accuracy": np.mean([metrics.balanced_accuracy_score(y, p >= 0.5) for y, p in columns]),
        }
    )


@pytest.mark.parametrize("metric", MULTI)
def test_images_of_which_nothing_is_known_change_no_score(metric: str) -> None:
    rng = np.random.default_rng(1)
    truth, said, known = rng.random((30, 3)) < 0.4, rng.random((30, 3)), rng.random((30, 3)) < 0.7
    known[20:] = False
    each = [
        evidence({"probabilities": p, "labels": p >= 0.5}, {"labels": y & k, "known": k}, [metric])
        for p, y, k in zip(said, truth, known, strict=True)
    ]
    about_something = [one for one, k in zip(each, known, strict=True) if k.any()]
    assert 0 < len(about_something) <= 20
    assert scores(each, [metric], 3)[metric] == pytest.approx(scores(about_something, [metric], 3)[metric])


def test_pages_judge_an_image_by_what_is_known() -> None:
    said = {"probabilities": np.array([0.9, 0.9])}
    truth = {"labels": np.array([True, False]), "known": np.array([True, False])}
    found = outcome(said, {**said, "labels": np.array([True, True])}, truth, 2)
    assert (found.score, found.too_much, found.labels.tolist(), found.num_true.tolist()) == (0.9, 0, [0], [1, 0])


def test_a_host_is_not_handed_what_nobody_knows_as_zeros(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"host_metric: .* would count what format\.unknown names as 0"):
        config(tmp_path, host_metric={"file": "score.py"})

"""Probabilities in place of labels, and labels of a set that knows fewer classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from competition.config.loading import complete
from competition.support.errors import CompetitionError
from competition.tasks.classification.dataset import collate_targets, mix_batch, target_tensors
from competition.tasks.classification.loss import soft_labels
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Task


def test_soft_labels_are_learnt_beside_hard_ones(tmp_path: Path) -> None:
    (tmp_path / "soft.csv").write_text("image_id,a,b,c\nx,0.7,0.2,0.1\ny,0,0,1\n")
    data = {"classes": ["a", "b", "c"], "dir": str(tmp_path), "train_csv": "soft.csv"}
    form = {"train": {"layout": "probabilities"}}
    table = Task("classification").table.read_table(complete("classification", {"data": data, "format": form}))
    assert table.present().tolist() == [[True, False, False], [False, False, True]]
    targets = [target_tensors(table.target(0, 8, 8)), target_tensors({"label": 1})]
    batch = collate_targets(targets)
    expected = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(soft_labels(batch, 3), expected)
    (tmp_path / "soft.csv").write_text("image_id,a,b,c\nx,0.7,0.2,0.7\ny,0,2,1\n")
    with pytest.raises(CompetitionError, match="line 3: found '2'; expected a probability in column b"):
        Task("classification").table.read_table(complete("classification", {"data": data, "format": form}))


def test_several_labels_of_a_set_that_knows_fewer_classes_are_unknown() -> None:
    """It says nothing of the classes that none of its own is."""
    found = Task("classification").table.renumbered(
        {"labels": np.array([True, False])}, np.array([2, -1]), num_classes=3
    )
    assert found["labels"].tolist() == [False, False, True]
    assert found["known"].tolist() == [False, False, True]


def test_numbers_of_a_set_are_those_of_the_columns_that_its_own_are() -> None:
    renumbered = Task("classification").table.renumbered
    value = {"value": np.array([-3.0, 5.0, 7.0])}
    assert renumbered(value, np.array([1, -1, 0]), num_classes=2)["value"].tolist() == [7, -3]
    with pytest.raises(CompetitionError, match="0 are column 2 of 2; expected one"):
        renumbered(value, np.array([0, -1, -1]), num_classes=2)


def test_what_an_image_counts_is_mixed_as_its_label_is() -> None:
    """Of an image that is a third of another's, a third counts as that one does."""
    labels = torch.tensor([0, 1, 1, 0, 1])
    config = complete("classification", {"data": {"classes": ["a", "b"]}, "mix": {"mixup": 1.0, "cutmix": 1.0}})
    assert isinstance(config, TaskConfig)
    rng = np.random.default_rng(0)
    for _ in range(8):
        batch = {"image": torch.zeros(5, 3, 16, 16), "label": labels, "weight": labels.float()}
        mixed = mix_batch(batch, config, rng)
        torch.testing.assert_close(mixed["weight"], soft_labels(mixed, 2)[:, 1])
        soft = mix_batch(batch | {"soft": torch.nn.functional.one_hot(labels, 2).float()}, config, rng)
        torch.testing.assert_close(soft["weight"], soft_labels(soft, 2)[:, 1])

"""Probabilities in place of labels, and labels of a set that knows fewer classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from competition.config.loading import complete
from competition.support.errors import CompetitionError
from competition.tasks.classification.dataset import collate_targets, target_tensors
from competition.tasks.classification.loss import soft_labels
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

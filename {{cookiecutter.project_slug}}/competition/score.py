"""The score of stored predictions against the truth, by the same `decode` that makes the submission. No torch."""

from collections.abc import Sequence
from pathlib import Path

from competition.predictions import Predictions
from competition.settings import Config
from competition.task import Table, Task


def score_predictions(config: Config, table: Table, paths: Sequence[Path]) -> dict[str, float]:
    """Score the out-of-fold predictions of one or more files together, as one set of images."""
    task = Task(config.task)
    position = {image_id: index for index, image_id in enumerate(table.image_ids)}
    evidence = []
    for path in paths:
        for image_id, (height, width), prediction in Predictions(path):
            answer = task.decode.decode(prediction, height, width, config)
            truth = table.target(position[image_id], height, width)
            evidence.append(task.score.evidence(answer, truth))
    return task.score.scores(evidence, config.metrics, len(table.classes))


def score_constant(config: Config, table: Table, paths: Sequence[Path]) -> tuple[str, dict[str, float]]:
    """Return what the best blind submission is called and its scores on the same images."""
    task = Task(config.task)
    name, answer = task.score.constant_answers(table)
    position = {image_id: index for index, image_id in enumerate(table.image_ids)}
    evidence = []
    for path in paths:
        stored = Predictions(path)
        for image_id, (height, width) in zip(stored.image_ids, stored.sizes, strict=True):
            evidence.append(task.score.evidence(answer, table.target(position[image_id], height, width)))
    return name, task.score.scores(evidence, config.metrics, len(table.classes))


def describe_scores(scores: dict[str, float]) -> str:
    """Write scores as `dice 0.8123, iou 0.7012`."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())

"""The score of stored predictions against the truth, by the same `decode` that makes the submission. No torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from competition.predictions import Predictions
from competition.settings import Config
from competition.task import Table, Target, Task


def score_predictions(config: Config, table: Table, paths: Sequence[Path]) -> dict[str, float]:
    """Score the out-of-fold predictions of one or more files together, as one set of images."""
    decode = Task(config.task).decode.decode
    return _score(config, table, paths, lambda stored, i: decode(stored[i], *stored.sizes[i], config))


def score_constant(config: Config, table: Table, paths: Sequence[Path]) -> tuple[str, dict[str, float]]:
    """Return what the best blind submission is called and its scores on the same images."""
    name, answer = Task(config.task).score.constant_answers(table)
    return name, _score(config, table, paths, lambda stored, i: answer)


def _score(
    config: Config, table: Table, paths: Sequence[Path], answer: Callable[[Predictions, int], Target]
) -> dict[str, float]:
    """Score `answer(file, number of the image in it)` for every image of the files."""
    score = Task(config.task).score
    position = {image_id: index for index, image_id in enumerate(table.image_ids)}
    evidence = []
    for stored in map(Predictions, paths):
        for i, (image_id, (height, width)) in enumerate(zip(stored.image_ids, stored.sizes, strict=True)):
            truth = table.target(position[image_id], height, width)
            evidence.append(score.evidence(answer(stored, i), truth))
    return score.scores(evidence, config.metrics, len(table.classes))


def describe_scores(scores: dict[str, float]) -> str:
    """Write scores as `dice 0.8123, iou 0.7012`."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())

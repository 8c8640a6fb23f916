"""How labels and numbers are said beside their images; there is nothing to draw on them."""

from collections.abc import Sequence

import numpy as np

from competition.config.settings import Config
from competition.tasks.classification.kinds.find import kind_in, kind_of
from competition.tasks.classification.kinds.heads import head_classes, head_config, heads_in, of_head
from competition.tasks.classification.kinds.kind import MOST_NAMED
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Part, Table, Target


def draw(picture: np.ndarray, answer: Target, height: int, width: int, colors: Sequence[tuple[int, int, int]]) -> None:
    """Leave the picture as it is."""


def caption(answer: Target, classes: tuple[str, ...]) -> str:
    """Say the label, labels or numbers; of a prediction the likeliest classes, each with its probability. Of
    several targets each by its name."""
    if heads := heads_in(answer):
        each = {name: (of_head(answer, name), tuple(head_classes(classes, name))) for name in heads}
        return "; ".join(f"{name}: {caption(*one)}" for name, one in each.items())
    if not answer.get("is_known", True):
        return "unknown"
    if "probabilities" in answer:
        probabilities = np.asarray(answer["probabilities"])
        best = np.argsort(-probabilities, kind="stable")[: min(MOST_NAMED, max(np.count_nonzero(probabilities), 1))]
        return ", ".join(f"{classes[k]} {100 * probabilities[k]:.0f} %" for k in best)
    kind = kind_in(answer)
    return kind.caption(answer[kind.truth], classes)


def parts(table: Table, index: int, target: Target, height: int, width: int) -> list[Part]:
    """Return none: an answer is of the whole image."""
    return []


def part_name() -> str | None:
    """Return none."""
    return None


def amount_name(config: Config) -> str | None:
    """Return the number of a regression, or the labels where there may be several; of several targets the first's."""
    assert isinstance(config, TaskConfig)
    if targets := list(config.format.targets):
        return amount_name(head_config(config, targets[0]))
    return kind_of(config).amount_name

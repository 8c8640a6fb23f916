"""The metrics by name: which answers each can score, and which way is better. They are computed in `metrics.py`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator, Field, Tag

from competition.tasks.classification.metrics_together import TOGETHER

# single: one class an image; multi: any number of them, also the yes or no of one; regression: a number or several.
TargetKind = Literal["single", "multi", "regression"]
CLASSES: tuple[TargetKind, ...] = ("single", "multi")


@dataclass(frozen=True)
class Metric:
    """What is to be known of a metric before it is computed."""

    of: tuple[TargetKind, ...]  # what it can score
    lower_is_better: bool = False
    of_probabilities: bool = False  # thresholds do not change it, so that there is nothing to tune


METRICS: dict[str, Metric] = {
    "accuracy": Metric(CLASSES),
    "error": Metric(("single",), lower_is_better=True),
    "balanced_accuracy": Metric(CLASSES),
    "macro_recall": Metric(("single",)),
    "log_loss": Metric(CLASSES, lower_is_better=True, of_probabilities=True),
    "rsna2022": Metric(("multi",), lower_is_better=True, of_probabilities=True),
    "roc_auc": Metric(CLASSES, of_probabilities=True),
    "group_roc_auc": Metric(CLASSES, of_probabilities=True),
    "alaska": Metric(("multi",), of_probabilities=True),
    "macro_f1": Metric(CLASSES),
    "micro_f1": Metric(CLASSES),
    "samples_f1": Metric(("multi",)),
    "pf1": Metric(("multi",)),
    "voc_map": Metric(CLASSES, of_probabilities=True),
    "map5": Metric(("single",), of_probabilities=True),
    "qwk": Metric(("single", "regression")),
    "rmse": Metric(("regression",), lower_is_better=True),
    "mae": Metric(("regression",), lower_is_better=True),
    "r2": Metric(("regression",)),
    "weighted_r2": Metric(("regression",)),
}

# With `format.targets`: the weighted mean of their metrics, the more or the less the better, or a metric of one, as
# grapheme/macro_recall, or one of TOGETHER.
MEANS = ("mean", "mean_loss")
LOWER_IS_BETTER = ("mean_loss", *(name for name, one in (METRICS | TOGETHER).items() if one.lower_is_better))

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]
TargetMetric = Annotated[str, Field(pattern=r"^[\w/]+$")]
AnyMetric = Annotated[
    Annotated[MetricName, Tag("of one")] | Annotated[TargetMetric, Tag("of several")],
    Discriminator(lambda name: "of several" if name in (*MEANS, *TOGETHER) or "/" in str(name) else "of one"),
]

"""What may stand in `model:`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from competition.config.section import Count, Positive, Probability, Section
from competition.config.settings import Model


class MetricLearning(Section):
    """What a head learns that is not `linear`: see tasks/classification/metric_head.py."""

    size: Count = 512  # of an embedding
    margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.3  # an angle in radians, or of cosface a cosine
    scale: Positive = 30.0  # of cosines, before cross entropy
    centers: Count = 3  # of each class, with subcenter_arcface


Join = Literal["attention", "gated_attention", "max", "mean", "lse"]  # of the features of a group's images


class ClassificationModel(Model):
    """Any timm model by name."""

    answers_places: ClassVar[bool] = False

    # linear, or what learns distances for many classes of few images each, and answers by the nearest training images.
    head: Literal["linear", "arcface", "subcenter_arcface", "cosface"] = "linear"
    metric_learning: MetricLearning = MetricLearning()

    dropout: Probability = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of times that a block is left out, as transformers do
    pool: str | None = None  # how features become one vector: avg, max, avgmax, gem, token ...; None: the network's own
    # What becomes of data.columns: concat puts them beside the features, film scales and shifts features by them.
    join_columns: Literal["concat", "film"] = "concat"
    # With format.group: a sample is a group, whose images the network joins. None: it answers each image by itself, and
    # format.join says what becomes of the answers.
    join: Join | None = None

    def reasons_unused(self) -> dict[str, str]:
        """Describe, by key, what is of a head that learns distances, where this is another."""
        heads = ("arcface", "subcenter_arcface", "cosface")
        changed = [key for key in MetricLearning.model_fields if not self.metric_learning.is_usual(key)]
        of_heads = {key: heads[1:2] if key == "centers" else heads for key in changed}
        return {
            f"model.metric_learning.{key}": f"is of {' and '.join(heads)}, and model.head is {self.head}"
            for key, heads in of_heads.items()
            if self.head not in heads
        }

"""What may stand in `sampler:`: which images an epoch holds, and how often."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from competition.config.section import Count, Section

Share = Annotated[float, Field(gt=0, le=1)] | Literal["natural"]


class PositiveColumn(Section):
    """Images whose value in a column of train.csv is not empty, 0 or false count as positive."""

    column: str


class Sampler(Section):
    """Which training images an epoch holds, and how often.

    Without this section: every image once, but for those that do not fill the last batch, others in every epoch.
    """

    # any: whatever is looked for, masks, boxes or points; a list names classes
    positive: Literal["mask", "box", "any"] | list[str] | PositiveColumn | None = None
    # One share of positives, or its course: [[0, 0.8], [10, natural]], after so many epochs.
    share: Share | list[tuple[Annotated[int, Field(ge=0)], Share]] = "natural"
    course: Literal["hold", "linear", "cosine"] = "hold"  # between the points of `share`
    keep: Literal["positives", "negatives"] = "positives"  # all of these once; the others drawn or repeated
    num_draws: Count | None = None  # so many images an epoch, instead of `keep`
    weights: Literal["balanced", "sqrt"] | None = None  # by class frequency
    group: str | None = None  # column of train.csv, e.g. patient_id
    max_per_group: Count | None = None  # images of a group in an epoch

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.share != "natural" and self.positive is None:
            raise ValueError("sampler.share needs sampler.positive: say what counts as positive")
        if (self.group is None) != (self.max_per_group is None):
            raise ValueError("sampler.group and sampler.max_per_group come together")
        return self

    @property
    def tells_positives(self) -> bool:
        """Return whether a rule says what counts as positive; without one there is no share to speak of."""
        return bool(self.positive)

"""Sections of `data:` of which most configs have none: of a config without them, nothing here is looked at.

More than one file an image, what other runs say of it, columns of its row, images from elsewhere.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from competition.config.section import Section, field_pattern

FieldPattern = Annotated[str, AfterValidator(field_pattern)]


class Stack(Section):
    """Neighbours of an image as further channels: slices of a scan, times, layers.

    Those of a group are in the order of numbers, or of texts with numbers in them; neighbours are those next to an
    image among the files that are there, also without a row in train.csv.
    """

    # The fields of image ids, as "case{case}_day{day}_slice_{slice}": one is the order, the others are the group. None:
    # `order` and `group` are columns of train.csv (of test_csv, or the sample submission); without any of them
    # neighbours are the slices of a volume, which image_file names, as "{case}.tif[{slice}]".
    by: FieldPattern | None = None
    order: str | None = None  # None: the last field of `by`
    group: str | None = None  # a column; None with `by`: its other fields
    take: Annotated[list[Annotated[int, Field(ge=-1000, le=1000)]], Field(min_length=1)]  # places, 0: the image itself
    edge: Literal["repeat", "mirror", "zero"] = "repeat"  # beyond the first and last of a group

    @model_validator(mode="after")
    def _tells_an_order(self) -> Self:
        if self.by is None and (self.order is None) != (self.group is None):
            raise ValueError(
                "expected by: a pattern of image ids, as 'case{case}_slice_{slice}', or order: and group: columns"
            )
        if self.by is not None and self.group is not None:
            raise ValueError("group is a column, and by: has the group in its fields; expected one of them")
        if self.by is not None and self.order is not None and f"{{{self.order}}}" not in self.by:
            raise ValueError(f"order: {self.order!r} is no field of by: {self.by!r}")
        if self.edge == "zero" and 0 not in self.take:
            raise ValueError("edge: zero needs 0 in take:, or an image could be black altogether")
        return self

    @property
    def is_of_volumes(self) -> bool:
        """Return whether neighbours are slices of the same file."""
        return self.by is None and self.order is None

    @property
    def own(self) -> int:
        """The place in `take` of the image itself, or of what is nearest to it."""
        return min(range(len(self.take)), key=lambda place: abs(self.take[place]))


class Columns(Section):
    """Columns of train.csv and of the test table (test_csv, or the sample submission) that the network is told of an
    image beside its pixels; how it joins them says model.join_columns."""

    numeric: list[str] = []  # scaled by the training images of the fold; an empty cell is a value of its own
    categorical: list[str] = []  # each value is learnt; empty ones and those of no training image, too

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.names:
            raise ValueError("expected columns, as {numeric: [age], categorical: [sex, site]}")
        if twice := next((name for name in self.names if self.names.count(name) > 1), None):
            raise ValueError(f"it names {twice!r} twice; list each column once")
        return self

    @property
    def names(self) -> list[str]:
        """All of them, the numeric ones first."""
        return [*self.numeric, *self.categorical]

    @property
    def named(self) -> str:
        """All of them, in words."""
        return ", ".join(self.names)


class CropTo(Section):
    """See of an image only what another run found in it: of a test image what it predicts, of a training image what its
    networks say that had not seen it. Where it found nothing, the whole image is seen."""

    # Its name or, of another project, its folder: crops.csv there, which `competition crops RUN` writes in its project.
    run: str | None = None
    csv: Path | None = None  # or a file of yours with the same columns
    margin: Annotated[float, Field(ge=0, le=10)] = 0.1  # to each side, a share of the rectangle's height and width
    take: Literal["best", "all"] = "best"  # the surest box, or the rectangle around all of them

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.run is None) == (self.csv is None):
            raise ValueError(
                "expected run: of boxes or masks, or csv: a file as `competition crops` writes; one of them"
            )
        return self


OF_MAPS = {"mean": 0.5, "std": 0.25}  # of their channels, which are probabilities


class MapsOf(Section):
    """Add to an image's channels what another run says of its pixels, probabilities from 0 to 255: of a test image what
    it predicts, of a training image what its networks say that had not seen it."""

    # Its name or, of another project, its folder: maps/ there, which `competition maps RUN` writes in its project.
    run: str
    classes: Annotated[list[str], Field(min_length=1)]  # a map each, which has as many channels as a file of the image


class ExtraSet(Section):
    """Images from elsewhere: in the training part of every fold, never validated on.

    With data.crop or data.maps they are looked at by a run of theirs that has them among its training images, out of
    fold, or its test images: what networks say of images that they have learnt from is another thing.
    """

    csv: str  # in dir, as the next
    images: str = "train_images"
    dir: Path | None = None  # None: data.dir
    image_file: FieldPattern | None = None  # None: files are found as those of train.csv are
    format: dict[str, Any] = {}  # what its csv file has otherwise than train.csv, as keys of `format:`
    weight: Annotated[float, Field(ge=0)] | str = 1.0  # what an image counts in the loss, or a column that tells
    classes: dict[str, str | None] = {}  # its name of a class: ours, or null: left out
    crop: CropTo | Literal["whole"] | None = None  # with data.crop: {run: boxes2}, or whole: all of them is seen
    maps: str | None = None  # with data.maps: a run that has the same classes

    def looks(self, maps: MapsOf | None) -> dict[str, CropTo | MapsOf | None]:
        """Return the keys of `data:` by which its images are looked at, where those of train.csv are by `maps`."""
        own = None if maps is None or self.maps is None else maps.model_copy(update={"run": self.maps})
        return {"crop": None if self.crop == "whole" else self.crop, "maps": own}

    def refuse_unlooked(self, crop: CropTo | None, maps: MapsOf | None) -> None:
        """Raise ValueError where other runs look at the images of train.csv, and none is named for these."""
        for key, wanted, given in (("crop", crop, self.crop), ("maps", maps, self.maps)):
            if wanted is None and given is not None:
                raise ValueError(f"data.extra: {self.csv}: {key} goes with data.{key}; leave it out")
            if wanted is not None and given is None:
                named = "crop: {run: boxes2}, or crop: whole" if key == "crop" else "maps: masks2"
                raise ValueError(
                    f"data.extra: {self.csv}: of its images the run of data.{key} says nothing; name one that has them "
                    f"among its training or test images, as {named}"
                )

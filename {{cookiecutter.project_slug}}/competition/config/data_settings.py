"""What may stand in `data:`: where images are, and how they are changed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from competition.config.optional_data import OF_MAPS, Columns, CropTo, ExtraSet, FieldPattern, MapsOf, Stack
from competition.config.section import MOST_PIXELS, Count, Positive, Probability, Section
from competition.support.paths import here

Side = Annotated[int, Field(ge=16)]
MAX_PIXELS = 400_000_000  # of an image or mask: 400 MB a channel of 8 bits


def _both_sides(size: object) -> object:
    """Read `128` as short for `[128, 128]`."""
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, list) else size


def _fits_into_memory(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} are more than {MOST_PIXELS:,} pixels; expected fewer, or data.window")
    return size


def _is_course(given: Any) -> TypeGuard[list[Any]]:
    """Return whether a value is a list of epochs, each with a size."""
    return isinstance(given, list) and bool(given) and all(isinstance(one, list) and len(one) == 2 for one in given)


ImageSize = Annotated[tuple[Side, Side], BeforeValidator(_both_sides), AfterValidator(_fits_into_memory)]
# An epoch and the size of training images from then on.
SizeFrom = Annotated[
    tuple[Annotated[int, Field(ge=0)], ImageSize],
    BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given),
]
# A Kaggle notebook has the files elsewhere; a config that is kept says what holds on every machine.
DataFolder = Annotated[
    Path,
    AfterValidator(lambda folder: here().data(folder.expanduser())),
    PlainSerializer(lambda folder: str(here().as_given(folder)), return_type=str, when_used="json"),
]


class Crop(Section):
    """Cut out a random part and scale it to the image size."""

    probability: Probability = 0.5
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.6  # share of the image's area
    # Make training images smaller before anything random, so far that the smallest part still fills the image size:
    # data.cache keeps them so. Samples are a little smoother than by one step; validation and prediction are as before.
    shrink_first: bool = False


class ShiftScaleRotate(Section):
    """Move, zoom and turn; what comes in from outside is black."""

    probability: Probability = 0.5
    shift: Probability = 0.06  # share of the side
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1  # zoom between 1 - scale and 1 + scale
    rotate: Annotated[float, Field(ge=0, le=180)] = 15  # degrees


class BrightnessContrast(Section):
    """Shift brightness and stretch contrast by up to this share."""

    probability: Probability = 0.5
    brightness: Probability = 0.2
    contrast: Probability = 0.2


LISTS = ("OneOf", "SomeOf", "RandomOrder", "Sequential")  # steps made of `transforms`
FIRST = "before_resize"


def _written_out(given: object) -> object:
    """Read `GaussianBlur` as short for `{GaussianBlur: {}}`, in lists of steps, too; refuse what is no step."""
    step = {given: {}} if isinstance(given, str) else given
    names = [key for key in step if key != FIRST] if isinstance(step, dict) else []
    if not isinstance(step, dict) or len(names) != 1 or not isinstance(step[names[0]] or {}, dict):
        raise ValueError("expected the name of a transform with its arguments, as {GaussianBlur: {p: 0.3}}")
    (name,), arguments = names, dict(step[names[0]] or {})
    if name in LISTS:
        inside = arguments.get("transforms")
        if not isinstance(inside, list) or not inside:
            raise ValueError(f"{name} needs transforms: a list of steps")
        arguments["transforms"] = [_written_out(one) for one in inside]
    if not isinstance(step.get(FIRST, False), bool):
        raise ValueError(f"{FIRST} is true or false")
    return {name: arguments} | ({FIRST: True} if step.get(FIRST) else {})


def named_step(step: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return name and arguments of a step that is written out."""
    ((name, arguments),) = ((name, value) for name, value in step.items() if name != FIRST)
    return name, arguments


NamedStep = Annotated[dict[str, Any], BeforeValidator(_written_out)]


class Augmentation(Section):
    """Random changes of training images; masks and boxes follow. A missing part is off."""

    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    crop: Crop | None = None
    shift_scale_rotate: ShiftScaleRotate | None = None
    brightness_contrast: BrightnessContrast | None = None
    # Any transform of albumentations, as [{GaussianBlur: {p: 0.3}}, {OneOf: {p: 0.5, transforms: [...]}}], after
    # resizing or, with before_resize: true beside its name, before; own ones as {mine.py:Stain: {p: 0.5}}.
    more: list[NamedStep] = []

    @model_validator(mode="after")
    def _sees_images_whole(self) -> Self:
        if self.crop is not None and self.crop.shrink_first and any(step.get(FIRST) for step in self.more):
            raise ValueError(
                f"crop.shrink_first makes images smaller before steps of more that {FIRST}: true lets see them whole; "
                "leave out either"
            )
        return self


class Window(Section):
    """Look at large images through windows at full resolution, instead of at the image made smaller.

    Training crops a window at random; validation and prediction go over the whole image and blend what overlaps.
    """

    size: ImageSize | None = None  # height, width in pixels of the image; None: data.image_size
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25  # share of a window's side, at least


def _one_or_several(given: object) -> object:
    """Read `[40, 80]` as short for `[[40, 80]]`, and null for none."""
    is_one = isinstance(given, list) and len(given) == 2 and not any(isinstance(one, list | tuple) for one in given)
    return [] if given is None else [given] if is_one else given


DicomWindow = Annotated[
    tuple[float, Positive], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]


def _named_file(given: object) -> object:
    """Read `groups.csv` as short for `{file: groups.csv}`."""
    return {"file": given} if isinstance(given, str) else given


def regular_expression(pattern: str) -> str:
    """Refuse what is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression, as 'case\\d+' ({error})") from None
    return pattern


class GroupFile(Section):
    """A csv file that says which images belong together: a row an image, by its id or its file's name."""

    file: Path  # from here; a name alone may also lie in data.dir
    image_id: str = "image_id"  # column
    group: str = "group"  # column


Split = Literal["stratified", "kfold", "group", "stratified_group", "multilabel", "amount"]


class Data(Section):
    """Where the images are and how they reach the network."""

    dir: DataFolder = Field(default_factory=lambda: here().data(Path("data")))
    # This and the next three lie in dir. A csv file, also packed; json, COCO's too; or a pattern of file names whose
    # folders tell the labels, as "train/{label}/{image_id}"; or several of these joined, as "train.csv & patients.csv"
    # and "train.csv & train_images/{study}/*.dcm": see files/joined_tables.py.
    train_csv: str = "train.csv"
    sample_submission: str = "sample_submission.csv"
    train_images: str = "train_images"
    test_images: str = "test_images"
    # An image's file in its folder: {image_id}, columns of train.csv (of test_csv for test images) and id_parts, whole,
    # cut or padded, and * or **/ for what they do not tell, as "{label}/{image_id[0]}/{image_id:0>5}_*.png".
    image_file: FieldPattern = "{image_id}"
    test_image_file: FieldPattern | None = None  # None: as image_file
    # Several files of one image, whose channels follow each other, as ["{image_id}_red.png", "{image_id}_green.png"];
    # image_file is the first of them then.
    files: Annotated[list[FieldPattern], Field(min_length=1)] | None = None
    stack: Stack | None = None  # neighbours of an image as further channels
    id_parts: FieldPattern | None = None  # names parts of ids for image_file, as "{case}_{day}_slice_{slice}"
    test_csv: str | None = None  # table in dir with the columns of test images; None: the sample submission
    crop: CropTo | None = None  # what of an image is seen, as {run: boxes1, margin: 0.1}
    maps: MapsOf | None = None  # further channels, as {run: masks1, classes: [lung]}
    columns: Columns | None = None  # that the network is told of an image, as {numeric: [age], categorical: [sex]}
    group_images: Count = 8  # with model.join: how many images of a group training draws at a time; else all are seen
    absent_images: Literal["ignore", "empty"] = "ignore"  # images without a row: left out, or without mask and box
    classes: list[str] | None = None  # None: the sorted labels of train.csv
    folds: Path | None = None  # None: folds.csv in dir; name another file where dir cannot be written to
    num_folds: Annotated[int, Field(ge=2, le=1000)] = 5
    group: str | None = None  # column of train.csv whose values must not be split over folds, e.g. patient_id
    # A csv of image_id,group, as near_duplicates.csv of `check`; or {file: tiles.csv, image_id: id, group: slide}.
    group_file: Annotated[GroupFile | None, BeforeValidator(_named_file)] = None
    # What of an image's id is its group: the part that a regular expression finds, or what stands in its brackets.
    group_pattern: Annotated[str, AfterValidator(regular_expression)] | None = None
    split: Split = "stratified"  # amount: by mask area, boxes or value; multilabel: every class evenly
    near_duplicates: bool = True  # whether `check` looks for them
    pseudo: Path | None = None  # pseudo.csv of another run: test images that every fold trains on, too
    extra: list[ExtraSet] = []  # further sets of images that every fold trains on
    weight: str | None = None  # column of train.csv: what an image counts in the loss, 0: it is left out
    weights_csv: Path | None = None  # a csv of image_id,weight with the same; 1 for images that it does not name
    image_size: ImageSize = (256, 256)  # height, width of what the network sees; or by epoch: [[0, 128], [10, 224]]
    train_sizes: list[SizeFrom] = []  # what `image_size` by epoch is read as
    window: Window | None = None
    # Of all files of an image together; left out, data.maps come beside those that it has without them.
    channels: Count = Field(3, validate_default=True)
    # Through which window shades of DICOM files are seen: centre and width in rescaled values, as Hounsfield units; of
    # several each makes a channel, as [[40, 80], [80, 200], [600, 2800]]. None: the first one of the file.
    dicom_window: Annotated[list[DicomWindow], BeforeValidator(_one_or_several)] = []
    # Whether images are turned as their EXIF orientation says, and viewers show them; ignore: pixels are read as they
    # are stored, which masks and boxes are mostly drawn on.
    exif_orientation: Literal["ignore", "apply"] = "ignore"
    # Height times width of the largest file that is read; a small one may unfold to more.
    max_pixels: Annotated[int, Field(ge=1, le=2**40)] = MAX_PIXELS
    # A value a channel; of a stack those of one place are enough, of several files those of one, of data.maps none.
    # Checked even when left out: the default has three values.
    mean: list[float] = Field([0.485, 0.456, 0.406], validate_default=True)
    std: list[Positive] = Field([0.229, 0.224, 0.225], validate_default=True)
    batch_size: Count = 16  # global: over all devices and accumulated batches; auto: the largest that fits the GPU
    finds_batch_size: bool = False  # what `batch_size: auto` is read as
    num_workers: Annotated[int, Field(ge=0, le=1024)] | None = (
        None  # processes that read images; None: a share of the cores, see `num_workers`
    )
    # Where training images are kept decoded for all epochs, folds and seeds; memory: shared, as long as a run needs it.
    cache: Literal["memory", "disk"] | None = None
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="before")
    @classmethod
    def _size_by_epoch(cls, given: Any) -> Any:
        """Read a course of sizes as those of training and, for all else, the last one."""
        size = given.get("image_size") if isinstance(given, dict) else None
        if _is_course(size):
            return given | {"image_size": size[-1][1], "train_sizes": size}
        course = given.get("train_sizes") if size is not None else None
        # A run's config has both; over it another size may be given, which is that of all epochs then.
        is_other = _is_course(course) and _both_sides(course[-1][1]) != _both_sides(size)
        return given | {"train_sizes": []} if is_other else given

    @model_validator(mode="before")
    @classmethod
    def _batch_to_be_found(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("batch_size") == "auto":
            return {key: given[key] for key in given if key != "batch_size"} | {"finds_batch_size": True}
        return given

    @field_validator("train_sizes")
    @classmethod
    def _ascend(cls, sizes: list[tuple[int, tuple[int, int]]]) -> list[tuple[int, tuple[int, int]]]:
        epochs = [epoch for epoch, _ in sizes]
        if epochs and (epochs[0] != 0 or sorted(set(epochs)) != epochs):
            raise ValueError("image_size by epoch needs epochs that ascend from 0, as [[0, 128], [10, 224]]")
        return sizes

    def size_in(self, epoch: int | None) -> tuple[int, int]:
        """Return height and width of training images in an epoch; of all else, where there is none."""
        known = [size for first, size in self.train_sizes if epoch is not None and first <= epoch]
        return known[-1] if known else self.image_size

    @model_validator(mode="before")
    @classmethod
    def _first_of_files(cls, given: Any) -> Any:
        files = given.get("files") if isinstance(given, dict) else None
        return given | {"image_file": files[0]} if isinstance(files, list) and files else given

    @model_validator(mode="before")
    @classmethod
    def _beside_maps(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "channels" in given or not isinstance(given.get("maps"), dict):
            return given
        stack = given.get("stack")
        own = _length(given.get("files")) * _length(stack.get("take") if isinstance(stack, dict) else None)
        if not own:  # which is refused where it stands
            return given
        usual = cls.usual("channels")
        return given | {"channels": max(usual // own, 1) * (own + _length(given["maps"].get("classes")))}

    @field_validator("channels")
    @classmethod
    def _are_shared(cls, channels: int, info: ValidationInfo) -> int:
        number = _files_of_image(info.data)
        if channels % number:
            raise ValueError(
                f"data.channels {channels} is that of all {number} files of an image (data.stack, data.files, "
                f"data.maps) together; expected {number}, if they are grey, or {3 * number}"
            )
        return channels

    @field_validator("dicom_window")
    @classmethod
    def _a_channel_each(cls, windows: list[DicomWindow], info: ValidationInfo) -> list[DicomWindow]:
        if len(windows) > 1 and {"files", "stack", "channels"} <= info.data.keys():
            channels = info.data["channels"] // _files_of_image(info.data)
            if channels % len(windows):
                raise ValueError(
                    f"{len(windows)} windows make {len(windows)} channels of a file; data.channels says {channels}"
                )
        return windows

    @field_validator("mean", "std")
    @classmethod
    def _one_a_channel(cls, values: list[float], info: ValidationInfo) -> list[float]:
        if not {"files", "stack", "maps"} <= info.data.keys():  # they are at fault
            return values
        channels, stack = info.data.get("channels", len(values)), info.data["stack"]
        of_maps = channels // _files_of_image(info.data) * _number_of_maps(info.data)
        for number in (1, _own_files(info.data), 1 if stack is None else len(stack.take)):
            if len(values) * number == channels - of_maps:
                return values * number + [OF_MAPS[str(info.field_name)]] * of_maps
        if len(values) != channels:
            number = _files_of_image(info.data)
            shared = f", which are {channels // number} for each of {number} files and maps" if number > 1 else ""
            raise ValueError(
                f"data.{info.field_name} has {len(values)} values for data.channels {channels}{shared}; give one a "
                "channel"
            )
        return values

    @field_validator("split")
    @classmethod
    def _goes_with_groups(cls, split: str, info: ValidationInfo) -> str:
        is_grouped = any(info.data.get(key) is not None for key in ("group", "group_file", "group_pattern"))
        if split in ("group", "stratified_group") and not is_grouped:
            raise ValueError("it needs data.group (a column of train.csv), data.group_file or data.group_pattern")
        if split == "kfold" and is_grouped:
            raise ValueError("it would tear groups apart; expected group or stratified_group")
        return split

    @model_validator(mode="after")
    def _windows_are_of_whole_images(self) -> Self:
        crop = self.augmentation.crop
        if self.window is not None and crop is not None and crop.shrink_first:
            raise ValueError(
                "data.window is cut from images at full resolution, which data.augmentation.crop.shrink_first takes "
                "away; leave out either"
            )
        return self

    @model_validator(mode="after")
    def _test_files_are_named(self) -> Self:
        if self.files is not None and self.test_image_file is not None:
            raise ValueError("data.files names the files of test images, too; leave data.test_image_file out")
        for key in ("cache", "maps"):
            is_of_one = _own_files(self.__dict__) == 1 or not any(one.image_file for one in self.extra)
            if getattr(self, key) is not None and not is_of_one:
                raise ValueError(
                    f"data.{key} goes with files of as many channels each, and data.extra has one file an image where "
                    f"data.files or data.stack have several; leave data.{key} out, or image_file of data.extra"
                )
        for one in self.extra:
            one.refuse_unlooked(self.crop, self.maps)
        patterns = [*(self.files or [self.image_file]), *filter(None, [self.test_image_file])]
        if self.stack is not None and self.stack.is_of_volumes and not all(one.endswith("]") for one in patterns):
            raise ValueError(
                "data.stack: expected by: a pattern of image ids, as 'case{case}_slice_{slice}', or order: and group: "
                "columns; or image_file: a slice of a volume, as '{case}.tif[{slice}]'"
            )
        return self

    @property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """Through which DICOM files are seen."""
        return tuple(self.dicom_window)

    @property
    def turns_upright(self) -> bool:
        """Whether images are turned by their EXIF orientation."""
        return self.exif_orientation == "apply"

    @property
    def file_channels(self) -> int:
        """How many of the channels each file of an image has."""
        return self.channels // _files_of_image(self.__dict__)

    @property
    def own_channels(self) -> int:
        """How many of the channels, the first ones, are of the image and its neighbours, and not of maps."""
        return self.file_channels * _own_files(self.__dict__)

    @property
    def stages(self) -> dict[str, list[str]]:
        """By run that goes before, its verbs that write what images are seen by: crops, maps or both."""
        stages = dict[str, list[str]]()
        for verb, look in (("crops", self.crop), ("maps", self.maps)):
            if look is not None and look.run is not None:
                stages.setdefault(look.run, []).append(verb)
        return stages

    @property
    def window_size(self) -> tuple[int, int] | None:
        """Height and width of a window in pixels of the image; none where images are seen whole."""
        return None if self.window is None else self.window.size or self.image_size

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("data.classes names a class twice; list each once")
        return classes


def _files_of_image(known: Mapping[str, Any]) -> int:
    """Return how many files an image has, by the values of `data:` that are known."""
    return _own_files(known) + _number_of_maps(known)


def _own_files(known: Mapping[str, Any]) -> int:
    files, stack = known.get("files"), known.get("stack")
    return (1 if files is None else len(files)) * (1 if stack is None else len(stack.take))


def _length(given: Any) -> int:
    return len(given) if isinstance(given, list) else 1


def _number_of_maps(known: Mapping[str, Any]) -> int:
    maps = known.get("maps")
    return 0 if maps is None else len(maps.classes)

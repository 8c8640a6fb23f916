"""Images that are trained on and never validated on: sets from elsewhere (`data.extra`), and test images that another
run has answered (`data.pseudo`). No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.config.data_settings import Data
from competition.config.loading import with_preset
from competition.config.optional_data import ExtraSet
from competition.config.section import Section
from competition.config.settings import Config
from competition.data.folds import folds_path
from competition.data.image_weights import WEIGHT_COLUMNS, column_weights
from competition.files.crops import folder_of_stage, refuse_older
from competition.files.csv_file import read_header
from competition.files.item_source import ImageSource, test_source, train_source
from competition.files.joined_tables import table_files
from competition.files.maps import refuse_absent_stages, stage_files
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Target, Task

PSEUDO = "pseudo.csv"
DUPLICATES = "extra_duplicates.csv"
DUPLICATE_COLUMNS = ("set", "image_id", "twin")  # an image of a set; its twin in train.csv, or nothing: a test image


@dataclass(frozen=True)
class Extra:
    """A set of images with their answers, read as its own train.csv is."""

    name: str  # its csv file, for messages
    config: Config  # by which its files are read
    table: Table
    weights: np.ndarray  # (n,)
    prefix: str = ""  # of its ids here: another set may have the same; test images keep theirs
    numbers: np.ndarray | None = None  # (its classes,) what each is here, -1 for one that is left out; none: the same
    num_classes: int = 0  # here

    @property
    def of_test(self) -> bool:
        """Return whether these are test images."""
        return not self.prefix

    def source(self, row: int) -> ImageSource:
        """Return what an image is made of."""
        return (test_source if self.of_test else train_source)(self.config, self.table.image_ids[row])

    def target(self, row: int, height: int, width: int) -> Target:
        """Return the answer for an image by the classes of train.csv."""
        target = self.table.target(row, height, width)
        if self.numbers is None:
            return target
        return Task(self.config.task).table.renumbered(target, self.numbers, self.num_classes)

    def present(self) -> np.ndarray:
        """Return (n, classes of train.csv) bool."""
        theirs = self.table.present()
        if self.numbers is None:
            return theirs
        ours = np.zeros((len(theirs), self.num_classes), dtype=bool)
        for column, number in enumerate(self.numbers):
            if number >= 0:
                ours[:, number] |= theirs[:, column]
        return ours

    def rows(self, known: Iterable[str]) -> np.ndarray:
        """Return (k,) rows that are trained on: those that count, have a class left if they had some and, of test
        images, no answer in train.csv, whose images are `known`."""
        keeps_class = self.present().any(axis=1) | ~self.table.present().any(axis=1)
        new = ~np.isin(self.table.image_ids.astype(str), list(known)) if self.of_test else True
        return np.flatnonzero((self.weights > 0) & keeps_class & new)


def read_extras(config: Config, table: Table) -> list[Extra]:
    """Read the sets of `data.extra` and `data.pseudo`; raise CompetitionError with a line per fault."""
    prefixes = further_prefixes(config)
    sets = [_read_set(config, table, *one) for one in zip(config.data.extra, prefixes, strict=True)]
    return sets if config.data.pseudo is None else [*sets, _read_pseudo(config, table, config.data.pseudo)]


def further_prefixes(config: Config) -> tuple[str, ...]:
    """Return what ids of the images of `data.extra` begin with in a training, set by set."""
    return tuple(f"extra{number}/" for number in range(len(config.data.extra)))


def _read_set(config: Config, table: Table, one: ExtraSet, prefix: str) -> Extra:
    theirs = [*one.classes, *(name for name in table.classes if name not in {*one.classes, *one.classes.values()})]
    if unknown := [ours for ours in one.classes.values() if ours is not None and ours not in table.classes]:
        raise CompetitionError(
            f"data.extra: {one.csv}: classes: {unknown[0]!r} is no class of {config.data.train_csv}; expected some of "
            f"{', '.join(table.classes[:12])}, or null for a class that is left out"
        )
    own = set_config(config, one, theirs)
    refuse_absent_stages(own.data)
    try:
        read = Task(config.task).table.read_table(own)
    except CompetitionError as error:
        listed = "our classes, or those of `classes` of data.extra"
        raise CompetitionError(str(error).replace("data.classes", listed)) from None
    numbers = None
    if one.classes:
        renamed = [one.classes.get(name, name) for name in read.classes]
        numbers = np.array([-1 if name is None else table.classes.index(name) for name in renamed])
    if isinstance(one.weight, str):
        weights = column_weights(own.train_csv, one.weight, read)
    else:
        weights = np.full(len(read.image_ids), one.weight)
    return Extra(str(own.train_csv), own, read, weights, prefix, numbers, len(table.classes))


def set_config(config: Config, one: ExtraSet, classes: Sequence[str]) -> Config:
    """Return the config by which a set is read as if its csv file was train.csv."""
    data = config.data.model_copy(
        update={
            "dir": _folder(config, one),
            "train_csv": one.csv,
            "train_images": one.images,
            "classes": list(classes),
            "group": None,
            **one.looks(config.data.maps),
        }
    )
    if one.image_file is not None:
        data = data.model_copy(update={"image_file": one.image_file, "files": None, "stack": None, "id_parts": None})
    try:
        form = type(config.format).model_validate(_format_of(config, one))
    except ValueError as error:  # pydantic's are many lines
        reason = " ".join(str(error).splitlines()[1:3]).partition("[type=")[0].strip()
        raise CompetitionError(f"data.extra: {one.csv}: format: {reason}; expected keys of `format:`") from None
    return config.model_copy(update={"data": data, "format": form, "decode": type(config.decode)()})


def _format_of(config: Config, one: ExtraSet) -> dict[str, Any]:
    """Return the format of a set: that of train.csv, or of a known competition by `like`, with its own keys over it."""
    if "like" in one.format:
        return with_preset({"task": config.task, "format": one.format}, {}, f"data.extra: {one.csv}")["format"]
    return _over(config.format, one.format)


def _over(section: Section, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a section holds with what is given over it, section by section; all else is replaced."""
    values = section.model_dump()
    for key, value in given.items():
        inside = getattr(section, key, None)
        values[key] = _over(inside, value) if isinstance(inside, Section) and isinstance(value, dict) else value
    return values


def own_config(config: Config, classes: Sequence[str], columns: Sequence[str] = ()) -> Config:
    """Return the config with the project's own format, in which a pseudo.csv of such columns is written."""
    data = config.data.model_copy(update={"classes": list(classes), "absent_images": "ignore", "group": None})
    form = Task(config.task).pseudo_labels.own_format(config, columns)
    return config.model_copy(update={"data": data, "format": form})


def _read_pseudo(config: Config, table: Table, asked: Path) -> Extra:
    path = pseudo_of_fold(asked, config.fold)
    header = [name.strip() for name in read_header(path)] if path.is_file() else []
    own = own_config(config, table.classes, header)
    read = Task(config.task).table.read_table(own, path)
    weighed = WEIGHT_COLUMNS[1] in header and WEIGHT_COLUMNS[1] not in table.classes
    weights = column_weights(path, WEIGHT_COLUMNS[1], read) if weighed else np.ones(len(read.image_ids))
    # Test images are where the config says, whatever format their answers have.
    return Extra(str(path), config, read, weights, num_classes=len(table.classes))


def pseudo_of_fold(path: Path, fold: int | str) -> Path:
    """Return the pseudo-labels that a training of a fold may learn from: of pseudo.csv, pseudo_fold0.csv beside it.

    All other networks of the run that wrote them have trained on the fold's validation images, and would tell it what
    these are; its own has not. Raises CompetitionError where there are those of other folds alone.
    """
    mine = of_fold(path, fold)
    if mine.is_file():
        return mine
    beside = pseudo_files(path)[1:]
    if beside and fold != "all":
        raise CompetitionError(
            f"{mine}: no such file; there are {', '.join(one.name for one in beside)}, by networks that have trained "
            f"on what fold {fold} validates, which would flatter its score; train that fold of the run that wrote "
            "them, then `competition pseudo RUN` again"
        )
    return path


def of_fold(path: Path, fold: int | str) -> Path:
    """Return the file of a fold's own pseudo-labels, beside that of all networks together."""
    return path.with_name(f"{path.stem}_fold{fold}{path.suffix}")


def pseudo_files(path: Path) -> list[Path]:
    """Return a file of pseudo-labels and those of single folds beside it."""
    return [path, *sorted(path.parent.glob(of_fold(path, "*").name))]


def refuse_older_pseudo(data: Data) -> None:
    """Raise CompetitionError where a run's pseudo-labels are older than what it says now; those of another name are the
    user's own."""
    if data.pseudo is None or data.pseudo.name != PSEUDO:
        return
    for path in filter(Path.is_file, pseudo_files(data.pseudo)):
        refuse_older(path, path.parent, "pseudo")


def describe_older_pseudo(data: Data) -> list[str]:
    """Warn of such pseudo-labels: a training that has begun by them goes on."""
    try:
        refuse_older_pseudo(data)
    except CompetitionError as error:
        return [f"warning: {error}"]
    return []


def duplicates_path(config: Config) -> Path:
    """Return where `check` writes which images of `data.extra` are validation or test images: beside folds.csv."""
    return folds_path(config).with_name(DUPLICATES)


def duplicate_sources(config: Config) -> list[Path]:
    """Return the files by which it is known whether that is up to date; none where there is no set to be looked at."""
    if not config.data.extra:
        return []
    return [*table_files(config.train_csv), *_tables(config)]


def extra_files(config: Config) -> list[Path]:
    """Return what the training part is made of beside train.csv, of that what is there: tables, and what a run says by
    which it is learnt."""
    data = config.data
    looked = [path for each in ways_of_looking(data) for path in stage_files(each)]
    named = [*([] if data.pseudo is None else pseudo_files(data.pseudo)), data.weights_csv, *looked]
    learnt = [*named, *_tables(config), *taught_files(config)]
    return [path for path in learnt if path is not None and path.is_file()]


def taught_files(config: Config) -> list[Path]:
    """Return what the run of `loss.distil` says of the images that are learnt, fold by fold; nothing without one."""
    if (distil := config.loss.distil) is None:
        return []
    folder = folder_of_stage(distil.run)
    names = ["fold*/oof.npz", *(["test.npz", "fold*/test.npz"] if config.data.pseudo else [])]
    return sorted(path for name in names for path in folder.glob(name))


def learnt_files(config: Config) -> list[Path]:
    """Return the tables that a training learns from: train.csv, what tells its training part, and those beside."""
    folds = [] if config.fold == "all" else [folds_path(config)]
    return [*table_files(config.train_csv), *folds, *extra_files(config)]


def ways_of_looking(data: Data) -> list[Data]:
    """Return the settings by which other runs look at the images of train.csv, and at those of each further set."""
    return [data, *(data.model_copy(update=one.looks(data.maps)) for one in data.extra)]


def extra_folders(config: Config) -> list[Path]:
    """Return the folders of images of `data.extra`."""
    return [_folder(config, one) / one.images for one in config.data.extra]


def _tables(config: Config) -> list[Path]:
    return [file for one in config.data.extra for file in table_files(_folder(config, one) / one.csv)]


def _folder(config: Config, one: ExtraSet) -> Path:
    """Return where the files of a set are named from."""
    return one.dir or config.data.dir

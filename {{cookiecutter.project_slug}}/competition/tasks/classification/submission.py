"""submission.csv in the format of `format.submission`: which rows it has, written and read back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.files.csv_file import UNNAMED, group_by_image, line, read_csv, read_header, row_faults
from competition.files.csv_keys import has_class, join_keys, split_keys
from competition.files.joined_tables import has_table
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.classification.decode import decided, decides_together, join_groups, settle
from competition.tasks.classification.formats.answers import parted
from competition.tasks.classification.formats.cells import (
    WrongCellError,
    is_text,
    number_of_cells,
    read_cells,
    write_cells,
)
from competition.tasks.classification.formats.groups import groups_of, groups_of_test
from competition.tasks.classification.kinds.find import kind_in
from competition.tasks.classification.kinds.heads import handed_in, head_by_head, head_classes
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.contract import Target


def id_columns(config: TaskConfig) -> list[str]:
    """Return the columns of the ids, in the order of sample_submission.csv."""
    keys, sample = config.format.submission_keys, config.sample_submission
    header = [name.strip() for name in read_header(sample)] if has_table(sample) else list(keys)
    return [name for name in header if name in keys]


def number_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return those of probabilities, decisions or values; labels are names, even 03."""
    has_numbers = not any(map(is_text, handed_in(config).values()))
    return _value_columns(config, _named(config, classes)) if has_numbers else []


def read_test_ids(config: TaskConfig, classes: Sequence[str]) -> np.ndarray:
    """Return image ids in order; of groups the ids of their images, which stand in `format.test_csv`, or their names
    where the network joins their images."""
    sample, form, classes = config.sample_submission, config.format, _named(config, classes)
    frame = read_csv(sample, [*form.submission_keys, *_value_columns(config, classes)])
    names = row_names(config, classes)
    ids, class_ids = split_keys(frame, form.submission_keys, sample, names)
    if class_ids is None:
        faults = row_faults(sample, np.flatnonzero(ids.duplicated()), ids, "a second row of this image")
    else:
        faults = _class_row_faults(sample, ids, class_ids, names)
    faults += row_faults(sample, np.flatnonzero(ids == ""), ids, "the id is empty", show_found=False)
    if faults:
        raise CompetitionError("\n".join(faults))
    ids = ids.iloc[group_by_image(ids)[1]]
    images = _images_of_groups(config, ids) if form.group else ids.to_numpy(dtype=object)
    return images if config.model.join is None else ids.to_numpy(dtype=object)


def asked_classes(config: TaskConfig, classes: Sequence[str]) -> set[str] | None:
    """Return none: its columns are read by the names of the classes, which finds those that are missing."""
    return None


def write_submission(
    path: Path, config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> None:
    """Write the columns and rows of sample_submission.csv, in its order."""
    columns, written = rows(config, answers, classes)
    if not has_class(config.format.submission_keys):
        write_csv(path, columns, written)
        return
    # The sample may hold the classes of an image in any order, and apart.
    places = [[name.strip() for name in columns].index(name) for name in id_columns(config)]
    by_key = {tuple(row[place] for place in places): row for row in written}
    asked = read_csv(config.sample_submission, id_columns(config)).itertuples(index=False, name=None)
    write_csv(path, columns, (by_key[key] for key in asked))


def rows(
    config: TaskConfig, answers: Iterable[tuple[str, Target]], classes: Sequence[str]
) -> tuple[list[str], Iterator[list[str]]]:
    """Return the columns of sample_submission.csv, and a row an image (or group), or a row an image and class, or
    target."""
    columns, classes = read_header(config.sample_submission), _named(config, classes)
    values = _value_columns(config, classes)
    written = _rows([name.strip() for name in columns], values, config, answers, classes)
    return ["" if UNNAMED.fullmatch(name) else name for name in columns], written


def _rows(
    columns: list[str],
    values: list[str],
    config: TaskConfig,
    answers: Iterable[tuple[str, Target]],
    classes: Sequence[str],
) -> Iterator[list[str]]:
    keys, names = config.format.submission_keys, row_names(config, classes)
    kept = _kept(config, [name for name in columns if _is_kept(config, name)])
    for image_id, answer in _settled(config, answers):
        cells = write_cells(answer, config, classes)
        for name, texts in zip(names, np.array(cells, dtype=object).reshape(len(names), -1).tolist(), strict=True):
            ids = join_keys(keys, image_id, name)
            texts_of = dict(zip([*keys, *values], [*ids, *texts], strict=True)) | kept.get(tuple(ids), {})
            yield [texts_of.get(column, "") for column in columns]


def row_names(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return what tells the rows of an image apart: classes, or targets; an empty name where it has one row."""
    if not has_class(config.format.submission_keys):
        return [""]
    return list(handed_in(config)) if config.format.targets else list(classes)


def _named(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return what the classes are called in the submission, of several targets each its own."""
    names, parts = config.format.submission.names, {name: (name, "") for name in classes}
    if config.format.targets:
        parts = {name: (name.partition("/")[2], name.partition("/")[0] + "/") for name in classes}
    known = [own for own, _ in parts.values()]
    if unknown := [name for name in names if name not in known]:
        raise CompetitionError(
            f"format.submission.names: {unknown[0]!r} is no class; expected some of {', '.join(known[:12])}"
        )
    return [before + names.get(own, own) for own, before in parts.values()]


def _is_kept(config: TaskConfig, name: str) -> bool:
    return UNNAMED.fullmatch(name) is not None or name in config.format.submission.keep


def _kept(config: TaskConfig, names: list[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Return by the ids of a row what the sample has in columns that are no answers, as the numbers of rows are."""
    if not names:
        return {}
    keys = list(config.format.submission_keys)
    frame = read_csv(config.sample_submission, [*keys, *names])
    ids = frame[keys].itertuples(index=False, name=None)
    kept = frame[names].itertuples(index=False, name=None)
    return {one: dict(zip(names, texts, strict=True)) for one, texts in zip(ids, kept, strict=True)}


def _settled(config: TaskConfig, answers: Iterable[tuple[str, Target]]) -> Iterator[tuple[str, Target]]:
    """Yield the decided answers by image, or by group; all are held in memory where they are decided together."""
    if not decides_together(config):
        for image_id, answer in answers:
            yield image_id, settle([_complete(answer, config)])[0]
        return
    pairs = list(answers)
    if not pairs:
        return
    names = [image_id for image_id, _ in pairs]
    complete = [_complete(answer, config) for _, answer in pairs]
    if config.averaged_groups is not None:
        names, complete = join_groups(complete, groups_of(config, names))
    yield from zip(names, settle(complete), strict=True)


@head_by_head
def _complete(answer: Target, config: TaskConfig) -> Target:
    """Add what the probabilities decide to an answer that holds nothing else."""
    is_whole = any(key in answer for key in ("value", "choice", "labels", "top", "thresholds", "quantile"))
    return answer if is_whole else decided(answer["probabilities"], config)


@head_by_head
def perfect_answer(truth: Target, num_classes: int) -> Target:
    """Return `value`, or `probabilities` of 0 and 1 with `choice` and `top`, or `labels`."""
    kind = kind_in(truth)
    return kind.perfect_answer(truth[kind.truth], int(truth.get("num_classes", num_classes)))


def read_submission(
    path: Path, config: TaskConfig, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, Target]]:
    """Yield image id and answer; raise CompetitionError at the first value that is not valid."""
    form, classes = config.format, _named(config, classes)
    columns = _value_columns(config, classes)
    frame = read_csv(path, [*form.submission_keys, *columns])
    names = row_names(config, classes)
    ids, class_ids = split_keys(frame, form.submission_keys, path, names)
    if class_ids is not None and (faults := _class_row_faults(path, ids, class_ids, names)):
        raise CompetitionError("\n".join(faults))
    numbers = {name: number for number, name in enumerate(classes)}
    images = _images_by_group(config) if config.averaged_groups else {}
    for image_id, at, cells in _cells_by_image(frame[columns], ids, class_ids, names):
        try:
            answer = read_cells(cells, config, numbers)
        except WrongCellError as error:
            row, column = at[error.cell // len(columns)], columns[error.cell % len(columns)]
            place = f"{path}: line {line(int(frame.index[row]))}: column {column}"
            raise CompetitionError(f"{place}: found {cells[error.cell][:60]!r}, {error.expected}") from None
        if config.averaged_groups and image_id not in images:
            raise CompetitionError(
                f"{path}: line {line(int(frame.index[at[0]]))}: {image_id!r} is no group of test.csv"
            )
        for one in images.get(image_id, [image_id]):
            yield one, answer


def _cells_by_image(
    values: pd.DataFrame, ids: pd.Series, class_ids: pd.Series | None, names: Sequence[str]
) -> Iterator[tuple[str, Sequence[int], Sequence[str]]]:
    """Yield image id, its rows in the order of their names, and its texts."""
    if class_ids is None:
        for row, (image_id, cells) in enumerate(zip(ids, values.itertuples(index=False, name=None), strict=True)):
            yield image_id, [row], cells
        return
    codes, first = group_by_image(ids)
    order = np.lexsort((pd.Index(list(names)).get_indexer(pd.Index(class_ids)), codes)).reshape(len(first), -1)
    texts = values.to_numpy(dtype=object)
    for image, at in enumerate(order):
        yield ids.iloc[first[image]], at.tolist(), texts[at].reshape(-1).tolist()


def _value_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return the columns beside the ids: those of the classes, or the only one the sample has."""
    sample, form = config.sample_submission, config.format
    layout = form.submission.layout
    for name, one in handed_in(config).items():
        _refuse_torn(one, head_classes(classes, name) if name else classes)
    # Without a sample `read_csv` says what is missing.
    header = [name.strip() for name in read_header(sample)] if has_table(sample) else []
    others = [name for name in header if name not in form.submission_keys and not _is_kept(config, name)]
    is_table = layout == "columns" and len(classes) > 1
    if form.targets:
        expected = _columns_of_several(config, classes, others)
        is_table = len(expected) > 1
    else:
        expected = list(classes) if is_table else others[:1] or ["answer"]
    extra = [name for name in others if name not in expected]
    if extra and set(form.submission_keys) <= set(header) and set(expected) <= set(header):
        known = (
            f"{'' if form.targets else 'the classes '}{', '.join(expected)}"
            if is_table
            else "a single column of answers"
        )
        raise CompetitionError(
            f"{sample}: found column {extra[0]!r}; expected {', '.join(form.submission_keys)} and {known}; to hand it "
            f"in as it is: format.submission.keep='[{extra[0]}]'"
        )
    return expected


def _refuse_torn(config: TaskConfig, classes: Sequence[str]) -> None:
    """Raise CompetitionError for a class whose name has what parts the classes of a cell."""
    form, layout = config.format, config.format.submission.layout
    separator = form.submission_separator
    torn = next((name for name in classes if parted(name, separator) != [name]), None)
    if torn is not None and layout in ("label_string", "top", "boxes"):
        what = "blanks" if separator == " " else repr(separator)
        raise CompetitionError(
            f"format.submission.layout {layout}: class {torn!r} has {what}; they part the classes: name it "
            "otherwise by format.submission.names"
        )


def _columns_of_several(config: TaskConfig, classes: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the columns of several targets: of a row each the classes that all have, or the only one there is; else
    those of one after the other, a target that is handed in as one text or number under its own name, the classes of
    others under theirs or under target_class."""
    own = {name: (one, head_classes(classes, name)) for name, one in handed_in(config).items()}
    if config.format.submission.layout == "rows":
        each = {name: known if number_of_cells(one, known) > 1 else [] for name, (one, known) in own.items()}
        if odd := next((name for name in each if each[name] != next(iter(each.values()))), None):
            raise CompetitionError(
                f"format.targets.{odd}: rows of a submission have the same columns, and its classes are "
                f"{', '.join(own[odd][1])}; {next(iter(own))} has {', '.join(next(iter(own.values()))[1])}"
            )
        return next(iter(each.values())) or list(others[:1]) or ["answer"]
    columns = []
    for name, (one, known) in own.items():
        if number_of_cells(one, known) == 1:
            columns.append(known[0] if known[0] in others and not is_text(one) else name)
        else:
            columns += known if set(known) <= set(others) else [f"{name}_{each}" for each in known]
    return columns


def _class_row_faults(path: Path, ids: pd.Series, class_ids: pd.Series, classes: Sequence[str]) -> list[str]:
    """Return the faults of rows that are not one an image and class."""
    known = ", ".join(list(classes)[:12])
    faults = row_faults(path, np.flatnonzero(~class_ids.isin(list(classes))), class_ids, f"expected a class of {known}")
    twice = pd.DataFrame({"image": ids, "class": class_ids}).duplicated().to_numpy()
    faults += row_faults(path, np.flatnonzero(twice), ids, "a second row of this image and class")
    if faults:
        return faults
    codes, first = group_by_image(ids)
    short = np.flatnonzero(np.bincount(codes) != len(classes))
    return row_faults(path, first[short], ids, f"this image lacks rows; expected one for each of {known}")


def _images_by_group(config: TaskConfig) -> dict[str, list[str]]:
    images: dict[str, list[str]] = {}
    for image_id, group in groups_of_test(config).items():
        images.setdefault(group, []).append(str(image_id))
    return images


def _images_of_groups(config: TaskConfig, groups: pd.Series) -> np.ndarray:
    """Return the images of the groups in their order; both files must name the same groups."""
    images, test_csv = _images_by_group(config), config.data.dir / config.format.test_csv
    faults = row_faults(
        config.sample_submission, np.flatnonzero(~groups.isin(list(images))), groups, f"{test_csv} has no image of it"
    )
    left = set(images) - set(groups)
    if left:
        faults.append(f"{test_csv}: {len(left)} groups, as {min(left)!r}, have no row in {config.sample_submission}")
    if faults:
        raise CompetitionError("\n".join(faults))
    return np.array([image for group in groups for image in images[group]], dtype=object)

"""`competition check CONFIG`: every fault of the data, before a minute of training is spent on it. No torch."""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from competition.checking.competition_files import shown_in
from competition.checking.doubtful_classes import doubtful_classes
from competition.checking.encoder_names import refuse_unknown_encoder
from competition.checking.extra_images import check_extras
from competition.checking.left_out import describe_left_out, way_on_for_absent
from competition.checking.near_duplicates import Thumbnails, near_duplicates, report_near_duplicates
from competition.checking.recognise_format import hint_at_format
from competition.checking.seen_images import WARNING, Seen, told_by_images
from competition.config.settings import Config
from competition.data.extra_sets import describe_older_pseudo, duplicate_sources, duplicates_path, read_extras
from competition.data.folds import folds_path, read_folds
from competition.data.groups import hint_at_groups
from competition.data.image_weights import own_weights
from competition.files.crops import describe_crops, uncropped
from competition.files.csv_file import MOST_LINES
from competition.files.file_patterns import expression, file_and_part, files_below
from competition.files.image_folder import left_out_images, one_of_many, row_in_words
from competition.files.item_source import own_part, test_source, train_source
from competition.files.joined_tables import has_table
from competition.files.maps import describe_maps, refuse_absent_stages
from competition.files.series import describe_groups, one_by_one
from competition.files.stacks import group_pattern
from competition.files.table_columns import describe_columns
from competition.runs.folder import has_begun_any
from competition.submission.submit import try_submission
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.support.progress import progress
from competition.tasks.contract import Table, Task
from competition.tasks.host_metric import load_score
from competition.training.monitor import refuse_unknown_monitor

Found = TypeVar("Found")
WritePage = Callable[[Config, Seen, Sequence[str], Sequence[str]], str]


def check(config: Config, write_page: WritePage | None = None) -> list[str]:
    """Look at files, columns, ids, labels and every image, and return a report.

    `write_page` draws what was seen, faults too, if train.csv and the masks could be read; it returns a line for the
    report. Raises CompetitionError with a line for every fault found.
    """
    refuse_missing_data(config)
    refuse_absent_stages(config.data)
    given, config = config, one_by_one(config)
    made_from = MadeFrom.now(duplicates_path(config), duplicate_sources(config))
    task = Task(config.task)
    faults: list[str] = []
    for refuse in (refuse_unknown_monitor, refuse_unknown_encoder):
        _collect(faults, lambda refuse=refuse: refuse(config))
    if (host := config.host_metric) is not None:
        _collect(faults, lambda: load_score(host.file))
    table = _collect(faults, lambda: task.table.read_table(config))
    if table is None:  # nothing else makes sense then
        later = f"{config.train_csv}: until it can be read nobody looks at images, folds and the sample submission"
        raise CompetitionError("\n".join([*faults, later, *hint_at_format(config)]))
    report = _describe_rows(faults, config, table)
    uncounted: list[str] = []  # the first answer at fault; the look at every image tells it with all others
    report += (counts := _collect(uncounted, table.summary)) or []
    test_ids = _collect(faults, lambda: task.submission.read_test_ids(config, table.classes))
    report += _describe_inputs(faults, given, config, table, test_ids)
    folds = _collect(faults, lambda: read_folds(config, table)) if folds_path(config).is_file() else None
    thumbnails = Thumbnails.of(len(table.image_ids)) if config.data.near_duplicates else None
    seen = Seen.of(task, table, 0 if test_ids is None else len(test_ids), config)
    seen.folds = folds
    is_compared = bool(config.data.extra) and config.data.near_duplicates
    test_thumbnails = Thumbnails.of(len(seen.test.heights)) if is_compared else None
    unused, idle = _unused_keys(given)
    faults += unused
    _collect(faults, lambda: own_weights(config, table))
    extras = _collect(faults, lambda: read_extras(config, table)) or []
    faults += _check_train_images(config, seen, thumbnails) or uncounted
    if test_ids is None:
        faults += hint_at_format(config)
    else:
        _collect(faults, lambda: try_submission(config, table.classes, test_ids.tolist()))
        faults += _check_test_images(config, test_ids, seen, test_thumbnails)
        report += _describe_test_ids(config, table, test_ids)
    both_seen = [] if thumbnails is None or test_thumbnails is None else [thumbnails, test_thumbnails]
    more_faults, more_lines = check_extras(config, table, extras, both_seen, _look_at_all, made_from)
    faults, report = faults + more_faults, report + more_lines
    asked = None if test_ids is None else task.submission.asked_classes(config, table.classes)
    doubts = [] if counts is None else doubtful_classes(config, table, asked)
    doubts += [*idle, *hint_at_groups(config, table), *describe_older_pseudo(config.data)]
    told, odd = told_by_images(config, seen)
    report, doubts = report + told, doubts + odd
    doubts += [] if faults else [*one_of_many(config, table.image_ids), *_torn_stacks(config, table, folds)]
    if thumbnails is not None:
        seen.groups = near_duplicates(thumbnails)
    drawn = [write_page(config, seen, [*report, *doubts], faults)] if write_page and counts is not None else []
    if faults:
        raise CompetitionError("\n".join([*faults, *doubts]))
    report += doubts
    if seen.groups is not None:
        report += report_near_duplicates(config, table, seen.groups, folds)
    return [*report, *drawn, *_unused_images(config, table.image_ids)]


def _describe_rows(faults: list[str], config: Config, table: Table) -> list[str]:
    line = f"{config.data.train_csv}: {len(table.image_ids)} images, classes {', '.join(table.classes)}"
    return [line, *(_collect(faults, lambda: describe_left_out(config, table)) or [])]


def _unused_keys(given: Config) -> tuple[list[str], list[str]]:
    """Return faults of keys that change nothing, or warnings where a training has learnt by them: the run goes on."""
    lines = list(given.unused().values())
    return ([], [f"{WARNING}{line}" for line in lines]) if has_begun_any(given.run_folder) else (lines, [])


def _describe_inputs(
    faults: list[str], given: Config, config: Config, table: Table, test_ids: np.ndarray | None
) -> list[str]:
    """Say what an image, or by the config as it was given a group of them, is made of beside its own file."""
    return [
        *(_collect(faults, lambda: describe_groups(given)) or []),
        *(_collect(faults, lambda: describe_columns(config, table.image_ids, test_ids)) or []),
        *describe_crops(config.data, table.image_ids, test_ids),
        *describe_maps(config.data),
    ]


def _describe_test_ids(config: Config, table: Table, test_ids: np.ndarray) -> list[str]:
    lines = [f"{config.data.sample_submission}: {len(test_ids)} images"]
    if both := set(test_ids) & set(table.image_ids):
        files = f"{config.data.train_csv} and {config.data.sample_submission}"
        lines.append(f"images in both {files}: {len(both)}, as {min(both)!r}")
    return lines


def refuse_missing_data(config: Config) -> None:
    """Raise CompetitionError where there is no train.csv, or no folder of training images."""
    folder = config.data.dir / config.data.train_images
    has_images = folder.is_dir()
    if not has_table(config.train_csv) and not has_images:
        here = "" if config.data.dir.is_absolute() else f" of {Path.cwd()}"
        raise CompetitionError(
            f"{config.train_csv}: no data there; put the competition's files into {config.data.dir}/{here} (or give "
            f"data.dir=PATH), or make a small competition to try with: competition sample"
        )
    if not has_images and config.data.dir.is_dir():
        there = ", ".join(f"{one.name}/" for one in shown_in(config.data.dir) if one.is_dir())
        raise CompetitionError(f"{folder}: no such folder of images (data.train_images); there are {there or 'none'}")


def _check_train_images(config: Config, seen: Seen, thumbnails: Thumbnails | None) -> list[str]:
    table, data = seen.table, config.data

    def look(index: int) -> list[str]:
        try:
            source = train_source(config, table.image_ids[index])
            pixels = source.read()
            seen.note_orientation(source)
        except CompetitionError as error:
            return [f"{error} ({row_in_words(data, table.lines[index])})"]
        try:
            seen.add(index, pixels, table.target(index, pixels.shape[0], pixels.shape[1]))
        except CompetitionError as error:
            return str(error).splitlines()
        if thumbnails is not None:
            thumbnails.add(index, own_part(pixels, data))
        return []

    return _look_at_all(look, len(table.image_ids), "training images")


def _check_test_images(config: Config, test_ids: np.ndarray, seen: Seen, thumbnails: Thumbnails | None) -> list[str]:
    data = config.data

    def look(index: int) -> list[str]:
        try:
            source = test_source(config, test_ids[index])
            pixels = source.read()
            seen.note_orientation(source)
            seen.test.add(index, pixels)
            if thumbnails is not None:
                thumbnails.add(index, own_part(pixels, data))
        except CompetitionError as error:
            return [f"{error} (image {index + 1} of {data.sample_submission})"]
        return []

    return _look_at_all(look, len(test_ids), "test images")


def _look_at_all(look: Callable[[int], list[str]], number: int, what: str) -> list[str]:
    """Look at every image, several at a time: decoders let go of Python's lock."""
    faults: list[str] = []
    with ThreadPoolExecutor() as pool:
        looked: Iterable[list[str]] = pool.map(look, range(number), chunksize=64)
        for found in progress(looked, what, number):
            faults += found
    if len(faults) > MOST_LINES:
        return [*faults[:MOST_LINES], f"{what}: and {len(faults) - MOST_LINES} more faults"]
    return faults


def _unused_images(config: Config, used: np.ndarray) -> list[str]:
    folder = config.data.dir / config.data.train_images
    if folder == config.data.dir:  # where all else is, too
        return []
    named = [*used, *left_out_images(config, used)]  # the latter are told of already
    known = {file.path for image_id in named for file in train_source(config, image_id).present()}
    depths = {len(path.relative_to(folder).parts) for path in known if folder in path.parents}
    patterns = [re.compile(expression(file_and_part(one)[0])) for one in config.data.files or [config.data.image_file]]
    # What lies in folders beside that of images may be masks; what lies in folders as images do is called so, too.
    unused = [
        name
        for name in sorted(files_below(folder))
        if folder / name not in known
        and ("/" not in name or (len(Path(name).parts) in depths and any(one.fullmatch(name) for one in patterns)))
    ]
    if not unused:
        return []
    line = f"{folder}: {len(unused)} files that {config.data.train_csv} does not name, as {unused[0]}"
    return [line + way_on_for_absent(config)]


def _torn_stacks(config: Config, table: Table, folds: np.ndarray | None) -> list[str]:
    """Warn where images of one stack lie in different folds, or will: training sees what validation is asked about."""
    data = config.data
    if data.stack is None:
        return []
    key, value = ("group", data.stack.group) if data.stack.group else ("group_pattern", group_pattern(data.stack))
    way_on = f"data.{key}='{value}'" if value else "data.group, data.group_pattern or data.group_file"
    way_on += " keeps a stack in one fold"
    if folds is None:
        is_grouped = table.groups is not None or any((data.group, data.group_file, data.group_pattern))
        return [] if is_grouped else [f"warning: images of one stack may come into different folds: {way_on}"]
    sources = [train_source(uncropped(config), image_id) for image_id in table.image_ids]
    owner = {source.own_file(data): row for row, source in enumerate(sources)}
    torn = [
        (table.image_ids[row], table.image_ids[owner[file]], folds[row], folds[owner[file]])
        for row in range(len(sources))
        for file in sources[row].present()
        if file in owner and folds[owner[file]] != folds[row]
    ]
    if not torn:
        return []
    (one, other, fold, other_fold), number = torn[0], len({one for one, *_ in torn})
    return [
        f"warning: {number} images have neighbours of their stack in other folds, as {one!r} in fold {fold} has "
        f"{other!r} in fold {other_fold}: the score of a fold is too good where training has seen its images; "
        f"{way_on}, once the folds are made again"
    ]


def _collect(faults: list[str], look: Callable[[], Found]) -> Found | None:
    try:
        return look()
    except CompetitionError as error:
        faults.extend(str(error).splitlines())
        return None

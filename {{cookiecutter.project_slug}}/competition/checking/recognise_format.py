"""Which task and `format:` the files of a competition have, and the YAML that reads them, tried. No torch."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from competition.checking.competition_files import archives, possible_tables, table_of_test_images
from competition.config.data_settings import Data
from competition.config.loading import complete, dump_yaml, format_presets, parse_overrides, settings_of, task_names
from competition.config.settings import Config
from competition.data.groups import hint_at_groups
from competition.files.csv_file import UNNAMED, not_utf8, read_header, refuse_no_header, refuse_other_separator
from competition.files.image_search import find_images
from competition.files.item_source import test_source, train_source
from competition.files.joined_tables import has_table, is_other_table, read_other_table
from competition.submission.submit import try_submission
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

NUM_ROWS = 1000  # that are looked at
MOST_CHANNELS = 64  # of an image
NUM_TRIED = 5  # images that are read by a config before it is printed
EXAMPLE = "configs/mine.yaml"  # where a user may put a config
STAGES = ("train.csv", "the sample submission", "a submission", "images and their answers")


@dataclass(frozen=True)
class Reading:
    """A part of a config that may read the files, and how far it gets."""

    task: str
    part: dict[str, Any]
    stage: int  # how many of STAGES it passes
    fault: str  # what is wrong at the next one; nothing behind the last


def recognise_folder(words: list[str]) -> list[str]:
    """Return a config file that reads a competition, of which only `data.dir=PATH` and the like is known.

    It lies in configs/; whatever is no YAML is a comment, as are the lines of further readings that fit, too. Raises
    CompetitionError where there are no files, or of no known format.
    """
    data = _data_settings(words)
    if not data.dir.is_dir():
        raise CompetitionError(f"{data.dir}: no such folder; name the one with the competition's files: data.dir=PATH")
    # Names of files tell more than columns do, where the usual ones are not there.
    readings = [] if has_table(data.dir / data.train_csv) else [*_known_competitions(data)]
    for tables in possible_tables(data) if not readings else ():
        with_tables = data.model_copy(update=tables)
        found = [one for task in task_names() for one in _readings(task, with_tables, data, tables)]
        readings += found
        if any(one.stage == len(STAGES) for one in found):
            break
    if not any(one.stage == len(STAGES) for one in readings):
        readings += _known_competitions(data)
    if not readings:
        _refuse_unknown(data)
    most = max(one.stage for one in readings)
    best, *others = _known_tasks_first([_by_its_name(one, data) for one in readings if one.stage == most])
    train, sample = _tables_of(best, data)
    files = f"{data.dir / train} and {sample}"
    if best.stage == len(STAGES):
        said = [f"no config given; these lines in one read {files}, and the images that were tried"]
    else:
        said = [
            f"no config given; these lines may be a beginning for {files}, but fail at {STAGES[best.stage]}:",
            *best.fault.splitlines()[:3],
        ]
    lines = [*_commented(archives(data.dir)), *_commented(_group_hints(best)), *_config_lines(best)]
    for one in others:
        word = "or, as another reading that fits" if one.task == best.task else "or, for another task"
        lines += ["", *_commented([f"{word}:", *_config_lines(one)])]
    return [
        *_commented(said),
        *lines,
        *_commented([f"next, with these lines in {EXAMPLE}: competition check {EXAMPLE}"]),
    ]


def _tables_of(reading: Reading, data: Data) -> tuple[str, str]:
    """Return the names of the tables that a reading reads."""
    try:
        asked = complete(reading.task, reading.part).data
    except CompetitionError:
        asked = data.model_copy(
            update={key: reading.part["data"].get(key, name) for key, name in _csv_files(data).items()}
        )
    return asked.train_csv, asked.sample_submission


def _refuse_unknown(data: Data) -> None:
    """Raise CompetitionError where no reading is known at all, with what is there."""
    missing = {name: key for key, name in _csv_files(data).items() if not has_table(data.dir / name)}
    beside = archives(data.dir)
    if missing:
        there = sorted(path.name + "/" * path.is_dir() for path in data.dir.iterdir() if not path.name.startswith("."))
        inside = f"; there are {', '.join(there[:12])}{', ...' if len(there) > 12 else ''}" if there else ""
        faults = [
            f"{data.dir / name}: no such file; where it has another name: data.{key}=NAME{inside}"
            for name, key in missing.items()
        ]
        raise CompetitionError("\n".join([*faults, *beside]))
    for name in _csv_files(data).values():
        read_header(data.dir / name)
        refuse_other_separator(data.dir / name, list(_first_rows(data.dir / name, strict=True).columns))
    raise CompetitionError(
        "\n".join(
            [
                f"{data.dir / data.train_csv}, {data.sample_submission}: no format known here fits, of "
                f"{' or '.join(task_names())}; name a config and say in its `format:` how the columns are to be read",
                *beside,
            ]
        )
    )


def _readings(task: str, data: Data, given: Data, tables: dict[str, str]) -> list[Reading]:
    """Return the readings of a task, each with the images as they are and as found, whichever gets further."""
    kept = {**given.model_dump(mode="json", exclude_unset=True), "dir": str(given.dir), **tables}
    readings = []
    for form, images in _forms(task, data):
        tried = [
            try_reading(task, form | {"data": _not_usual(kept | one | form.get("data", {})) | _given(given)})
            for one in ([{}, images] if images else [{}])
        ]
        best = max(reversed(tried), key=lambda one: one.stage)  # what was found, where neither gets further
        readings.append(_with_channels(best) if best.stage == len(STAGES) - 1 else best)
    return readings


def _known_competitions(data: Data) -> Iterator[Reading]:
    """Yield the readings of known competitions by their own names of files."""
    for task in task_names():
        for name in format_presets(task):
            reading = try_reading(task, {"data": {"dir": str(data.dir)} | _given(data), "format": name})
            if reading.stage == len(STAGES) - 1:
                reading = _with_found_images(reading, _given(data))
            if reading.stage == len(STAGES):
                yield reading


def _with_found_images(reading: Reading, given: dict[str, Any]) -> Reading:
    """Return a reading of tables that are right with the images where they are, as png instead of the host's DICOM."""
    data = complete(reading.task, reading.part).data
    train, sample = (_first_rows(data.dir / name) for name in _csv_files(data).values())
    found = find_images(data, train, sample)
    of_data = reading.part["data"] | found | given
    return try_reading(reading.task, reading.part | {"data": of_data}) if found else reading


def _by_its_name(reading: Reading, data: Data) -> Reading:
    """Return the known competition that reads just what a reading does, if there is one: its name says it in a line,
    and has the host's metrics."""
    if reading.stage < len(STAGES) or isinstance(reading.part.get("format"), str):
        return reading
    what = None
    for name in format_presets(reading.task):
        known = try_reading(reading.task, {"data": {"dir": str(data.dir)} | _given(data), "format": name})
        if known.stage < len(STAGES):
            continue
        what = what or _what_is_read(reading)
        if _what_is_read(known) == what:
            return known
    return reading


def _known_tasks_first(readings: list[Reading]) -> list[Reading]:
    """Return the readings of a task that a known competition is of before those of others, else in their order."""
    firsts = {one.task: isinstance(one.part.get("format"), str) for one in reversed(readings)}
    return sorted(readings, key=lambda one: not firsts[one.task])


OF_THE_SCORE = "class_weights"  # a key of answers that readings may differ in


def _what_is_read(reading: Reading) -> tuple[Any, ...]:
    """Return the images of training and test, the classes, and of some images file and answer."""
    config = complete(reading.task, reading.part)
    task = Task(config.task)
    table = task.table.read_table(config)
    tests = task.submission.read_test_ids(config, table.classes).tolist()
    rows = _some(len(table.image_ids))
    sources = [train_source(config, table.image_ids[row]) for row in rows]
    sizes = [source.read_size() for source in sources]
    sources += [test_source(config, tests[row]) for row in _some(len(tests))]
    files = [source.files for source in sources]
    targets = [table.target(row, *size) for row, size in zip(rows, sizes, strict=True)]
    answers = [str({key: value for key, value in one.items() if key != OF_THE_SCORE}) for one in targets]
    return table.image_ids.tolist(), tests, sorted(table.classes), files, answers, task.submission.id_columns(config)


def _with_channels(reading: Reading) -> Reading:
    """Return a reading with as many channels as the first images have, if it gets further so."""
    try:
        config = complete(reading.task, reading.part)
        ids = Task(config.task).table.read_table(config).image_ids
        sources = [train_source(config, ids[row]) for row in _some(len(ids))]
        channels = sources[0].count_channels()
        if channels == config.data.channels or channels > MOST_CHANNELS:
            return reading
        images = [source.of_channels(channels).read() for source in sources]
    except (CompetitionError, IndexError):
        return reading
    most = 255 if images[0].dtype == np.uint8 else 1
    values = np.concatenate([pixels.reshape(-1, channels) for pixels in images]).astype(np.float64) / most
    found = {
        "channels": channels,
        "mean": [float(f"{one:.4g}") for one in values.mean(axis=0)],
        "std": [float(f"{one:.4g}") or 1.0 for one in values.std(axis=0)],
    }
    other = try_reading(reading.task, reading.part | {"data": reading.part["data"] | found})
    return other if other.stage > reading.stage else reading


def _not_usual(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if (key, value) != ("image_file", "{image_id}")}


def _given(data: Data) -> dict[str, Any]:
    return {key: value for key, value in data.model_dump(mode="json", exclude_unset=True).items() if key != "dir"}


def try_reading(task: str, part: dict[str, Any]) -> Reading:
    """Read the files by a part of a config: tables, a trial submission, some images and their answers."""
    try:
        config = complete(task, part)
    except CompetitionError as error:
        return Reading(task, part, 0, str(error))
    stage, fault = try_config(config)
    return Reading(task, part, stage, fault)


def try_config(config: Config) -> tuple[int, str]:
    """Return how many of STAGES a config passes, and what is wrong at the next one."""
    task, stage = Task(config.task), 0
    try:
        table = task.table.read_table(config)
        stage = 1
        test_ids = task.submission.read_test_ids(config, table.classes)
        stage = 2
        try_submission(config, table.classes, test_ids.tolist())
        stage = 3
        for row in _some(len(table.image_ids)):
            table.target(row, *train_source(config, table.image_ids[row]).read().shape[:2])
        for row in _some(len(test_ids)):
            test_source(config, test_ids[row]).read()
    except CompetitionError as error:
        return stage, str(error)
    return len(STAGES), ""


def _some(number: int) -> list[int]:
    return np.unique(np.linspace(0, number - 1, NUM_TRIED).astype(int)).tolist() if number else []


def _config_lines(reading: Reading) -> list[str]:
    """Return the lines of a config file in configs/ with a task's recognised part."""
    values: dict[str, Any] = {"base": f"{reading.task}.yaml", **reading.part}
    try:  # those of the base may not be able to score this format
        return _yaml_lines(values | {"metrics": complete(reading.task, reading.part).metrics})
    except CompetitionError:
        return _yaml_lines(values)


def _group_hints(reading: Reading) -> list[str]:
    """Return lines on columns of train.csv that look like groups; none where it has faults, which a check tells."""
    try:
        config = complete(reading.task, reading.part)
        return hint_at_groups(config, Task(reading.task).table.read_table(config))
    except CompetitionError:
        return []


def _commented(lines: list[str]) -> list[str]:
    return [f"# {line}" for line in lines]


def recognise(task: str, data: Data) -> dict[str, Any] | None:
    """Return the part of a task's config that reads the files in `data.dir`; none where they are not of this task."""
    for form, images in _forms(task, data):
        of_data = images | form.get("data", {})
        return form | {"data": of_data} if of_data else form
    return None


def _forms(task: str, data: Data) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield the parts of a task's config that may read the files, each with the keys that find the images."""
    train, sample = (_first_rows(data.dir / name) for name in _csv_files(data).values())
    if train.empty and sample.empty:
        return
    images = find_images(data, train, sample)
    images |= table_of_test_images(data.model_copy(update=images), sample)
    for form in Task(task).recognise.readings(train, sample, data.model_copy(update=images)):
        yield form, images


def hint_at_format(config: Config) -> list[str]:
    """Return lines for the config if other ones read the files further than it does."""
    stage, _ = try_config(config)
    if stage == len(STAGES):
        return []
    kept = config.data.model_dump(mode="json", exclude_unset=True)
    for form, images in _forms(config.task, config.data):
        for of_data in (form.get("data", {}), images | form.get("data", {})):
            part = form | ({"data": of_data} if of_data else {})
            tried = try_reading(config.task, form | {"data": kept | of_data | {"dir": str(config.data.dir)}})
            if tried.stage > stage:
                return _hint(config, part)
    return []


def _hint(config: Config, part: dict[str, Any]) -> list[str]:
    wanted, given = settings_of(config.task, part), settings_of(config.task, config.model_dump(mode="json"))
    # What a preset is called does not matter where it says the same.
    differing = [key for key, value in wanted.items() if key != "format.like" and given.get(key) != value]
    if not differing:
        return []
    files = f"{config.data.train_csv} and {config.data.sample_submission}"
    return [f"{files} look as if these lines would read them ({', '.join(differing)} differ):", *_yaml_lines(part)]


def _data_settings(words: list[str]) -> Data:
    values = parse_overrides(words)
    try:
        if set(values) - {"data"}:
            raise CompetitionError(
                f"{words[0]}: without a config only data.dir=PATH and other keys of `data:` are read"
            )
        return Data.model_validate_json(json.dumps(values.get("data", {})), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        raise CompetitionError(f"data.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def _csv_files(data: Data) -> dict[str, str]:
    """Return by key of `data:` the files that tell a format."""
    return {"train_csv": data.train_csv, "sample_submission": data.sample_submission}


def _first_rows(path: Path, *, strict: bool = False) -> pd.DataFrame:
    """Read the first rows as text; no rows where there is no such file, or no table, of which `strict` tells."""
    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_filter": False, "index_col": False}
    try:
        if is_other_table(path):
            frame = read_other_table(path).head(NUM_ROWS) if has_table(path) else pd.DataFrame()
            return frame.rename(columns=str.strip).reset_index(drop=True)
        refuse_no_header(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # `read_csv` of csv_file.py refuses such files
            frame = pd.read_csv(path, nrows=NUM_ROWS, **as_text)
    except (OSError, ValueError, CompetitionError) as error:  # pandas' own errors are ValueErrors
        if strict and isinstance(error, UnicodeDecodeError):
            raise not_utf8(path, error) from None
        if strict and not isinstance(error, OSError):
            raise CompetitionError(f"{path}: not a csv file: {' '.join(str(error).split())}") from None
        return pd.DataFrame()
    # Columns without a name number the rows.
    return frame.rename(columns=str.strip).loc[:, lambda rows: ~rows.columns.str.fullmatch(UNNAMED)]


def _yaml_lines(values: dict[str, Any]) -> list[str]:
    return dump_yaml(values, short=True).splitlines()

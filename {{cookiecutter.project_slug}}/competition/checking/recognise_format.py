"""Which task and `format:` the files of a competition have, and the YAML that reads them, tried. No torch."""

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from competition.checking.competition_files import archives, possible_tables, shown_in, table_of_test_images
from competition.checking.readings import (
    STAGES,
    Reading,
    by_its_name,
    given_keys,
    settled,
    try_config,
    try_reading,
    with_channels,
)
from competition.config.data_settings import Data
from competition.config.loading import complete, dump_yaml, format_presets, parse_overrides, settings_of, task_names
from competition.config.settings import Config
from competition.data.groups import hint_at_groups
from competition.files.csv_file import UNNAMED, not_utf8, read_header, refuse_no_header, refuse_other_separator
from competition.files.image_search import find_images
from competition.files.joined_tables import has_table, is_other_table, read_other_table
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

NUM_ROWS = 1000  # that are looked at
EXAMPLE = "configs/mine.yaml"  # where a user may put a config


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
        readings += [one for one in _known_competitions(data) if not _drops_classes(one, readings)]
    if not readings:
        _refuse_unknown(data)
    most = max(one.stage for one in readings)
    furthest = [one for one in readings if one.stage == most]
    best, *others = _known_tasks_first([settled(by_its_name(settled(one), data)) for one in furthest])
    train, sample = _tables_of(best, data)
    files = f"{data.dir / train} and {sample}"
    if best.stage == len(STAGES):
        said = [f"no config given; these lines in one read {files}, and the images that were tried"]
    else:
        said = [
            f"no config given; these lines may be a beginning for {files}, but fail at {STAGES[best.stage]}:",
            *best.fault.splitlines()[:3],
        ]
    said += [*archives(data.dir), *_group_hints(best), *(best.said or ())]
    said += _shipped_config(best)
    lines = _config_lines(best)
    for one in others:
        word = "or, as another reading that fits" if one.task == best.task else "or, for another task"
        lines += ["", *_commented([f"{word}:", *_config_lines(one)])]
    return [
        *_commented(said),
        *lines,
        *_commented([f"next, with these lines in {EXAMPLE}: competition check {EXAMPLE}"]),
    ]


def _shipped_config(reading: Reading) -> list[str]:
    """Return a line on the config that is shipped for a known competition."""
    form = reading.part["format"]
    name = form if isinstance(form, str) else form.get("like")
    path = Path("configs") / f"{reading.task}_{name}.yaml"
    return [f"{path} is a whole config for it, with a network and a course of its own"] if path.is_file() else []


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
        there = [path.name + "/" * path.is_dir() for path in shown_in(data.dir)]
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
            try_reading(task, form | {"data": _not_usual(kept | one | form.get("data", {})) | given_keys(given)})
            for one in ([{}, images] if images else [{}])
        ]
        best = max(reversed(tried), key=lambda one: one.stage)  # what was found, where neither gets further
        readings.append(with_channels(best) if best.stage == len(STAGES) - 1 else best)
    return readings


def _known_competitions(data: Data) -> Iterator[Reading]:
    """Yield the readings of known competitions by their own names of files."""
    for task in task_names():
        for name in format_presets(task):
            reading = try_reading(task, {"data": {"dir": str(data.dir)} | given_keys(data), "format": name})
            if reading.stage == len(STAGES) - 1:
                reading = _with_found_images(reading, given_keys(data))
            if reading.stage == len(STAGES):
                yield reading


def _drops_classes(known: Reading, others: Sequence[Reading]) -> bool:
    """Return whether a known competition has no use for a column of classes that another reading of its task names: it
    may fit for that alone, as one of boxes of one class does."""
    forms = (one.part["format"] for one in others if one.task == known.task)
    is_named = any(isinstance(form, dict) and form.get("class_id") for form in forms)
    return is_named and not settings_of(known.task, known.part).get("format.class_id")


def _with_found_images(reading: Reading, given: dict[str, Any]) -> Reading:
    """Return a reading of tables that are right with the images where they are, as png instead of the host's DICOM."""
    data = complete(reading.task, reading.part).data
    train, sample = (_first_rows(data.dir / name) for name in _csv_files(data).values())
    found = find_images(data, train, sample)
    of_data = reading.part["data"] | found | given
    return try_reading(reading.task, reading.part | {"data": of_data}) if found else reading


def _known_tasks_first(readings: list[Reading]) -> list[Reading]:
    """Return the readings of a task that a known competition is of before those of others, else in their order."""
    firsts = {one.task: isinstance(one.part.get("format"), str) for one in reversed(readings)}
    return sorted(readings, key=lambda one: not firsts[one.task])


def _not_usual(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if (key, value) != ("image_file", "{image_id}")}


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

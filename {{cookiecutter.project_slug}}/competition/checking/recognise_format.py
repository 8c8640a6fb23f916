"""Which task and `format:` the files of a competition have, and the YAML that reads them. No torch."""

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from competition.config.data_settings import Data
from competition.config.loading import complete, dump_yaml, parse_overrides, settings_of, task_names
from competition.config.settings import Config
from competition.data.groups import hint_at_groups
from competition.files.csv_file import refuse_no_header, refuse_other_separator
from competition.files.image_folder import find_images
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

NUM_ROWS = 1000  # that are looked at
EXAMPLE = "configs/mine.yaml"  # where a user may put a config


def recognise_folder(words: list[str]) -> list[str]:
    """Return a config file that reads a competition, of which only `data.dir=PATH` and the like is known.

    It lies in configs/; whatever is no YAML is a comment, as are the lines of further tasks that fit, too. Raises
    CompetitionError where there are no files, or of no known format.
    """
    data = _data_settings(words)
    if not data.dir.is_dir():
        raise CompetitionError(f"{data.dir}: no such folder; name the one with the competition's files: data.dir=PATH")
    found = [(task, form) for task in task_names() if (form := recognise(task, data))]
    missing = {name: key for key, name in _csv_files(data).items() if not (data.dir / name).is_file()}
    if missing and not found:
        raise CompetitionError(
            "\n".join(
                f"{data.dir / name}: no such file; where it has another name: data.{key}=NAME"
                for name, key in missing.items()
            )
        )
    if not found:
        for name in _csv_files(data).values():
            refuse_other_separator(data.dir / name, list(_first_rows(data.dir / name).columns))
        raise CompetitionError(
            f"{data.dir / data.train_csv}, {data.sample_submission}: no format known here fits; name a config and say "
            f"in its `format:` how the columns are to be read"
        )
    files = f"{data.dir / data.train_csv} and {data.sample_submission}"
    lines = [*_commented(_group_hints(*found[0], data)), *_config_lines(*found[0], data)]
    for task, form in found[1:]:
        lines += ["", *_commented(["or, for another task:", *_config_lines(task, form, data)])]
    return [
        *_commented([f"no config given; these lines in one read {files}"]),
        *lines,
        *_commented([f"next, with these lines in {EXAMPLE}: competition check {EXAMPLE}"]),
    ]


def _config_lines(task: str, form: dict[str, Any], data: Data) -> list[str]:
    """Return the lines of a config file in configs/ with a task's recognised part."""
    values: dict[str, Any] = {"base": f"{task}.yaml", **form, "data": {"dir": str(data.dir), **form.get("data", {})}}
    # Those of the base may not be able to score this format.
    metrics = complete(task, form).metrics
    return _yaml_lines(values | {"metrics": metrics})


def _group_hints(task: str, form: dict[str, Any], data: Data) -> list[str]:
    """Return lines on columns of train.csv that look like groups; none where it has faults, which a check tells."""
    config = complete(
        task, form | {"data": {**data.model_dump(mode="json", exclude_unset=True), **form.get("data", {})}}
    )
    try:
        return hint_at_groups(config, Task(task).table.read_table(config))
    except CompetitionError:
        return []


def _commented(lines: list[str]) -> list[str]:
    return [f"# {line}" for line in lines]


def recognise(task: str, data: Data) -> dict[str, Any] | None:
    """Return the part of a task's config that reads the files in `data.dir`; none where they are not of this task."""
    train, sample = (_first_rows(data.dir / name) for name in _csv_files(data).values())
    if train.empty and sample.empty:
        return None
    images = find_images(data, train, sample)
    form = Task(task).recognise.recognise(train, sample, data.model_copy(update=images))
    of_data = {} if form is None else images | form.get("data", {})
    return form | {"data": of_data} if form is not None and of_data else form


def hint_at_format(config: Config) -> list[str]:
    """Return lines for the config if the files look like another format than the config says."""
    form = recognise(config.task, config.data)
    if form is None:
        return []
    wanted, given = settings_of(config.task, form), settings_of(config.task, config.model_dump(mode="json"))
    # What a preset is called does not matter where it says the same.
    differing = [key for key, value in wanted.items() if key != "format.like" and given.get(key) != value]
    if not differing:
        return []
    files = f"{config.data.train_csv} and {config.data.sample_submission}"
    return [f"{files} look as if these lines would read them ({', '.join(differing)} differ):", *_yaml_lines(form)]


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


def _first_rows(path: Path) -> pd.DataFrame:
    """Read the first rows as text; no rows where there is no such file, or no csv file."""
    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_filter": False, "index_col": False}
    try:
        refuse_no_header(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # `read_csv` of csv_file.py refuses such files
            frame = pd.read_csv(path, nrows=NUM_ROWS, **as_text)
    except (OSError, ValueError, CompetitionError):  # pandas' own errors are ValueErrors
        return pd.DataFrame()
    return frame.rename(columns=str.strip)


def _yaml_lines(values: dict[str, Any]) -> list[str]:
    return dump_yaml(values).splitlines()

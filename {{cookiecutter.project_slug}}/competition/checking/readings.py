"""A reading of a competition's files: a part of a config, how far it gets by them, what else it says. No torch."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from competition.config.data_settings import Data
from competition.config.loading import complete, format_presets
from competition.config.settings import Config
from competition.files.item_source import test_source, train_source
from competition.submission.submit import try_submission
from competition.support.errors import CompetitionError
from competition.support.spread import spread
from competition.tasks.contract import Task

MOST_CHANNELS = 64  # of an image
NUM_TRIED = 5  # images that are read by a config before it is printed
STAGES = ("train.csv", "the sample submission", "a submission", "images and their answers")


@dataclass(frozen=True)
class Reading:
    """A part of a config that may read the files, and how far it gets."""

    task: str
    part: dict[str, Any]
    stage: int  # how many of STAGES it passes
    fault: str  # what is wrong at the next one; nothing behind the last
    said: tuple[str, ...] | None = None  # by the answers and images of it; none where they were not asked


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
        for row in spread(len(table.image_ids), NUM_TRIED):
            table.target(row, *train_source(config, table.image_ids[row]).read().shape[:2])
        for row in spread(len(test_ids), NUM_TRIED):
            test_source(config, test_ids[row]).read()
    except CompetitionError as error:
        return stage, str(error)
    return len(STAGES), ""


def by_its_name(reading: Reading, data: Data) -> Reading:
    """Return the known competition that reads just what a reading does, if there is one: its name says it in a line,
    and has the host's metrics."""
    if reading.stage < len(STAGES) or isinstance(reading.part.get("format"), str):
        return reading
    what = None
    for name in format_presets(reading.task):
        known = try_reading(reading.task, {"data": {"dir": str(data.dir)} | given_keys(data), "format": name})
        if known.stage < len(STAGES):
            continue
        what = what or _what_is_read(reading)
        if _what_is_read(known) == what:
            return known
    return reading


def settled(reading: Reading) -> Reading:
    """Return a reading with what answers and images tell, where columns and rows do not, and what is said of it.

    A reading is asked once: many images are read for it.
    """
    if reading.said is not None:
        return reading
    told, said = _told_by_images(reading)
    reading = replace(reading, said=tuple(said))
    if not told:
        return reading
    form = reading.part["format"]
    merged: dict[str, Any] = {"like": form} if isinstance(form, str) else dict(form)
    for key, value in told.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    other = try_reading(reading.task, reading.part | {"format": merged})
    return replace(other, said=tuple(_told_by_images(other)[1])) if other.stage == reading.stage else reading


def _told_by_images(reading: Reading) -> tuple[dict[str, Any], list[str]]:
    """Return what `settle` of the task does; nothing of a reading that does not get as far as images."""
    if reading.stage < len(STAGES):
        return {}, []
    config, task = complete(reading.task, reading.part), Task(reading.task)
    return task.recognise.settle(config, task.table.read_table(config))


OF_THE_SCORE = "class_weights"  # a key of answers that readings may differ in


def _what_is_read(reading: Reading) -> tuple[Any, ...]:
    """Return the images of training and test, the classes, and of some images file and answer."""
    config = complete(reading.task, reading.part)
    task = Task(config.task)
    table = task.table.read_table(config)
    tests = task.submission.read_test_ids(config, table.classes).tolist()
    rows = spread(len(table.image_ids), NUM_TRIED)
    sources = [train_source(config, table.image_ids[row]) for row in rows]
    sizes = [source.read_size() for source in sources]
    sources += [test_source(config, tests[row]) for row in spread(len(tests), NUM_TRIED)]
    files = [source.files for source in sources]
    targets = [table.target(row, *size) for row, size in zip(rows, sizes, strict=True)]
    answers = [str({key: value for key, value in one.items() if key != OF_THE_SCORE}) for one in targets]
    return table.image_ids.tolist(), tests, sorted(table.classes), files, answers, task.submission.id_columns(config)


def with_channels(reading: Reading) -> Reading:
    """Return a reading with as many channels as the first images have, if it gets further so."""
    try:
        config = complete(reading.task, reading.part)
        ids = Task(config.task).table.read_table(config).image_ids
        sources = [train_source(config, ids[row]) for row in spread(len(ids), NUM_TRIED)]
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


def given_keys(data: Data) -> dict[str, Any]:
    """Return the keys of `data:` that were given, but for the folder."""
    return {key: value for key, value in data.model_dump(mode="json", exclude_unset=True).items() if key != "dir"}

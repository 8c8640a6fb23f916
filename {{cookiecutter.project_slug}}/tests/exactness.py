"""What test_exact_validation.py compares: the loss and every metric of a task, on any number of images and processes.

Run as a script, this file has groups of so many processes, which are forks, write the scores that each has computed:
    python tests/exactness.py FOLDER 2 3
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from task_facts import facts_of
from trainings import fork_group, get_ready, wait

from competition.config.loading import task_names, validate
from competition.config.settings import Config
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Task
from competition.tasks.made_up_images import write_sample
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.trainer import build_trainer

NUM_IMAGES = (1, 2, 7, 20)
BATCH_SIZES = (1, 3, 8)
# By number of processes: numbers of images, of which some leave processes without one or with fewer batches, and the
# size of batches; into how many they are cut is one process's to vary.
NUM_IMAGES_OF = {2: (1, 7), 3: (2, 7)}
BATCH_SIZE_OF = {2: 3, 3: 1}
Scores = dict[str, float]
Cases = dict[str, dict[str, Scores]]  # by form, then by number of images and batch size


def forms(task: str) -> dict[str, dict[str, Any]]:
    """Return by name the parts of a config in which a task is scored: that of the made-up data, and those of
    <task>_forms.py where there is one."""
    more = importlib.import_module(f"{task}_forms").FORMS if importlib.util.find_spec(f"{task}_forms") else {}
    return {task: {}} | {f"{task}, {name}": sections for name, sections in more.items()}


def make_config(task: str, data: Path, batch_size: int, form: str | None = None, **trainer: Any) -> Config:
    """Return a small config whose every process has batches of `batch_size`; with a form, of all its metrics."""
    processes = trainer.get("devices", 1)
    sizes = {"dir": str(data), "image_size": 64, "num_workers": 0, "batch_size": batch_size * processes}
    # A network's last bits hang on the size of its batch, on some CPUs, and thresholds magnify them: double precision
    # leaves the scores nothing to differ by.
    trainer = {"accelerator": "cpu", "devices": 1, "precision": "64-true"} | trainer
    values = {"name": "t", "task": task, "data": sizes, "model": {"encoder": "test_resnet"}, "trainer": trainer}
    values |= {"optimizer": {"lr": 3e-3}, **facts_of(task).demanding}
    if form is None:
        return validate(values, {}, "test")
    sections = forms(task)[form]
    values |= sections | {"data": sizes | sections.get("data", {})}
    if (task, form) not in METRICS:  # to try each takes longer than to validate a network
        METRICS[task, form] = every_metric(values)
    return validate(values | {"metrics": METRICS[task, form]}, {}, "test")


METRICS: dict[tuple[str, str], list[str]] = {}


def every_metric(values: dict[str, Any]) -> list[str]:
    """Return the metrics that a config may name: those its task knows and the config is not refused with."""
    config = validate(values, {}, "test")
    known = literals(type(config).model_fields["metrics"].annotation)
    # Those of several targets are called by their names, too.
    known += [name for name in (*config.metrics, *facts_of(config.task).more_metrics) if name not in known]
    return [name for name in known if _is_valid(values | {"metrics": [name]})]


def literals(annotation: Any) -> list[str]:
    """Return the words that a type allows, somewhere within."""
    if isinstance(annotation, str):
        return [annotation]
    return [word for part in get_args(annotation) for word in literals(part)]


def _is_valid(values: dict[str, Any]) -> bool:
    try:
        validate(values, {}, "test")
    except CompetitionError:
        return False
    return True


def fold_data(config: Config, num_validated: int, table: Table | None = None) -> FoldData:
    """Return the first images of the table, which is read where it was not yet, as the validation fold."""
    table = table or Task(config.task).table.read_table(config)
    return FoldData(config, table, (np.arange(len(table.image_ids)) >= num_validated).astype(np.int64))


def make_module(config: Config, table: Table | None = None) -> CompetitionModule:
    """Return the network that all processes begin with."""
    torch.manual_seed(0)
    classes = (table or Task(config.task).table.read_table(config)).classes
    return CompetitionModule(config.model_dump(mode="json"), list(classes))


def write_competition(folder: Path, task: str) -> None:
    """Write made-up data, and for each form weights that know something of it, so that no score is zero."""
    write_sample(task, folder / "data", max(NUM_IMAGES))
    if importlib.util.find_spec(f"{task}_forms"):
        importlib.import_module(f"{task}_forms").write_tables(folder / "data")
    for form in forms(task):
        config = make_config(task, folder / "data", 4, form, precision="32-true", max_steps=15, limit_val_batches=0)
        module = make_module(config)
        build_trainer(config, []).fit(module, fold_data(config, 1))
        torch.save(module.state_dict(), folder / f"{form}.pt")


def batches_of(processes: int) -> list[tuple[int, int]]:
    """Return numbers of images and sizes of batches."""
    if processes > 1:
        return [(number, BATCH_SIZE_OF[processes]) for number in NUM_IMAGES_OF[processes]]
    return [(number, size) for number in NUM_IMAGES for size in sizes_for(number)]


def sizes_for(number: int) -> list[int]:
    """Return the sizes of batches up to the first that takes all images at once."""
    return [size for before, size in zip((0, *BATCH_SIZES), BATCH_SIZES, strict=False) if before < number]


def score_all(folder: Path, task: str, processes: int) -> Cases:
    """Validate the weights of every form on every number of images; one process in batches of every size."""
    strategy = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
    results: Cases = {form: {} for form in forms(task)}
    for form in results:
        weights = torch.load(folder / f"{form}.pt", weights_only=True)
        one = make_config(task, folder / "data", 1, form)
        table = Task(task).table.read_table(one)
        module = make_module(one, table)
        module.load_state_dict(weights)
        for number, batch_size in batches_of(processes):
            config = make_config(task, folder / "data", batch_size, form, **strategy)
            (found,) = build_trainer(config, []).validate(module, fold_data(config, number, table), verbose=False)
            values = {name: float(value) for name, value in found.items()}
            results[form][f"{number} images, batch {batch_size}"] = values
    return results


def write_scores(folder: Path, processes: int, rank: int) -> None:
    everything = {task: score_all(folder / task, task, processes) for task in task_names()}
    (folder / f"{processes} processes, {rank}.json").write_text(json.dumps(everything))


if __name__ == "__main__":
    get_ready(task_names())
    folder = Path(sys.argv[1])
    os.chdir(folder)
    for number in map(int, sys.argv[2:]):
        wait(fork_group(number, lambda rank, size=number: write_scores(folder, size, rank)))

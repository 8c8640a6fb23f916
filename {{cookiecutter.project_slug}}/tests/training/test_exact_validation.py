"""Given the same predictions, the loss and every metric are the same number on 1, 2 and 3 processes and for any batch
size, here as in `train`."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import exactness
import numpy as np
import pytest
import torch
from exactness import (
    BATCH_SIZES,
    NUM_IMAGES,
    NUM_IMAGES_OF,
    Cases,
    Scores,
    fold_data,
    make_config,
    make_module,
    score_all,
    sizes_for,
    write_competition,
)
from trainings import looking_by, run_as_script, run_on_two, write_looks

from competition.config.loading import dump_config, load_config, task_names
from competition.config.settings import Config
from competition.data.folds import read_folds
from competition.prediction.stored import Predictions
from competition.scoring.out_of_fold import score_predictions
from competition.support.atomic_files import write_csv
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.trainer import build_trainer

each_task = pytest.mark.parametrize("task", task_names())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exact")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where Lightning would leave what it writes
        for task in task_names():
            write_competition(folder / task, task)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Cases]:
    """By task: the scores of one process."""
    return {task: score_all(folder / task, task, 1) for task in task_names()}


@pytest.fixture(scope="module")
def together(folder: Path) -> dict[int, list[dict[str, Cases]]]:
    """By number of processes and rank: what each process says the scores are."""
    run_as_script(exactness.__file__, folder, 2, 3)
    each = {
        processes: [folder / f"{processes} processes, {rank}.json" for rank in range(processes)] for processes in (2, 3)
    }
    return {processes: [json.loads(path.read_text()) for path in paths] for processes, paths in each.items()}


@pytest.mark.slow
@each_task
def test_scores_do_not_depend_on_the_batch_size(task: str, alone: dict[str, Cases]) -> None:
    for form, cases in alone[task].items():
        for number in NUM_IMAGES:
            one, *others = (cases[f"{number} images, batch {size}"] for size in sizes_for(number))
            assert others == [pytest.approx(one, abs=1e-6)] * len(others), (form, number)


@pytest.mark.slow
@each_task
@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_says_the_score_of_one_process(
    task: str, processes: int, alone: dict[str, Cases], together: dict[int, list[dict[str, Cases]]]
) -> None:
    for rank, found in enumerate(together[processes]):
        assert found[task].keys() == alone[task].keys()
        for form, cases in alone[task].items():
            assert len(found[task][form]) == len(NUM_IMAGES_OF[processes])
            for case, scores in found[task][form].items():
                alike = f"{case.partition(',')[0]}, batch 1"
                assert scores == pytest.approx(cases[alike], abs=1e-6), f"rank {rank}, {form}: {case}"


@pytest.mark.slow
@each_task
def test_the_scores_compared_are_worth_comparing(task: str, alone: dict[str, Cases]) -> None:
    """Every metric has a number even for one image, and differs between images, but for what weights of a few steps
    may never reach on some CPU: close boxes, an empty mask foreseen, and ranks of classes that few images have."""
    compared, silent = set(), set()
    for form, cases in alone[task].items():
        for name in cases[f"{NUM_IMAGES[0]} images, batch 1"]:
            values = [cases[f"{number} images, batch 1"][name] for number in NUM_IMAGES]
            assert np.isfinite(values).all(), (form, name)
            compared.add(name)
            if len(set(values)) == 1:
                silent.add(name)
    out_of_reach = {f"val/map{overlap}" for overlap in range(55, 100, 5)} | {"val/dice_negative", "val/voc_map"}
    assert silent <= out_of_reach, silent
    usual = make_config(task, Path("data"), 1).metrics
    assert compared - silent >= {"val/loss", *(f"val/{name}" for name in usual)}


@each_task
def test_scores_of_untrained_weights_do_not_depend_on_the_batch_size(task: str, tmp_path: Path) -> None:
    write_sample(task, tmp_path / "data", 20)
    found = []
    for batch_size in BATCH_SIZES:
        config = make_config(task, tmp_path / "data", batch_size)
        found += build_trainer(config, []).validate(make_module(config), fold_data(config, 7), verbose=False)
    assert found[1:] == [pytest.approx(found[0], abs=1e-6)] * 2


def last_row(path: Path) -> Scores:
    """Return the val/ columns of the last row of a metrics.csv."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: float(value) for name, value in rows[-1].items() if name.startswith("val/")}


def train_on_two(folder: Path, task: str) -> Config:
    """Run `competition train` on two processes in a folder of its own; return the config of the run.

    As torchrun would start it, which does so itself in test_faults.py. What another run says of images is among what is
    seen.
    """
    write_sample(task, folder / "data", 21)
    config = make_config(task, folder / "data", 2, devices=2, strategy="ddp", max_epochs=2, gradient_clip_val=1.0)
    config = config.model_copy(update={"data": config.data.model_copy(update={"num_folds": 2})})
    config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"predict_with": "latest"})})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_looks(config, "looked")
        (folder / "two.yaml").write_text(dump_config(config), encoding="utf-8")
        config = load_config([folder / "two.yaml"], looking_by(config, str(folder / "outputs" / "looked")))
        (folder / "two.yaml").write_text(dump_config(config), encoding="utf-8")
    ids = Task(task).table.read_table(config).image_ids
    write_csv(folder / "data" / "folds.csv", ("image_id", "fold"), ((name, i % 2) for i, name in enumerate(ids)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_on_two("train", "two.yaml")
    return load_config([folder / "two.yaml"])


def expected_scores(config: Config, weights: Path) -> Scores:
    """Validate the weights of a run in one process."""
    alone = config.model_copy(update={"trainer": {"accelerator": "cpu", "devices": 1, "precision": "64-true"}})
    table = Task(config.task).table.read_table(config)
    module = make_module(alone)
    module.load_state_dict(load_checkpoint(weights)["state_dict"])
    data = FoldData(alone, table, read_folds(alone, table))
    (scores,) = build_trainer(alone, []).validate(module, data, verbose=False)
    return {name: float(value) for name, value in scores.items()}


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names()[:1])  # test_distributed.py has each, without the command line
def test_training_on_two_processes_scores_and_predicts_every_image_once(task: str, tmp_path: Path) -> None:
    config = train_on_two(tmp_path, task)
    fold = tmp_path / "outputs" / "t" / "fold0"
    written = {path.name for path in fold.iterdir()}
    assert written >= {"config.yaml", "latest.pt", "best_loss.pt", "metrics.csv", "oof.npz"}
    assert not [name for name in written if "predictions" in name or "rank" in name or name.endswith(".tmp")]

    scores = last_row(fold / "metrics.csv")
    assert scores == pytest.approx(expected_scores(config, fold / "latest.pt"), abs=1e-6)

    table = Task(task).table.read_table(config)
    stored = Predictions(fold / "oof.npz")
    assert stored.image_ids == table.image_ids[read_folds(config, table) == 0].tolist()
    assert len(stored) == 11  # so that the two had shares of unequal size
    assert stored.classes == table.classes
    out_of_fold = score_predictions(config, table, [fold / "oof.npz"])
    assert {f"val/{name}": value for name, value in out_of_fold.items()} == pytest.approx(
        {name: value for name, value in scores.items() if name != "val/loss"}, abs=1e-6
    )

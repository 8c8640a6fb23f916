"""Predicting a trained run again in other views: what each adds, and that out-of-fold files follow."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from competition.config.loading import task_names
from competition.prediction.predict import predict_out_of_fold
from competition.prediction.stored import Predictions
from competition.runs.folder import CV, OOF, TEST, VIEWS, Run
from competition.scoring.tta_table import COLUMNS
from competition.scoring.tune import THRESHOLDS, tune
from competition.support.atomic_files import read_rows
from trainings import run_on_two

Command = Callable[..., CompletedProcess[str]]


@pytest.mark.slow
def test_seeds_of_a_fold_are_averaged_before_a_view_is_scored(
    replayable: Path, tmp_path: Path, command: Command
) -> None:
    outputs = Path(shutil.copytree(replayable, tmp_path / "outputs"))
    shutil.copytree(outputs / "t/fold1", outputs / "t/fold1_seed1")
    for path in (outputs / "t/fold1_seed1").glob("best_*.pt"):
        checkpoint = torch.load(path, weights_only=True)
        torch.manual_seed(1)
        for weights in checkpoint["state_dict"].values():
            if weights.is_floating_point() and weights.ndim > 1:
                weights.add_(torch.randn_like(weights) * weights.std())
        torch.save(checkpoint, path)
    done = command("predict", "t", "--views", "tta=[hflip]")
    assert done.returncode == 0, done.stderr
    *_, hflip = read_rows(outputs / "t" / VIEWS, "delete it", texts=COLUMNS)
    run = Run.open("t", ["tta=[hflip]"])
    predict_out_of_fold(run)
    tune(run)
    (pooled,) = (
        row
        for row in read_rows(outputs / "t" / CV, "delete it", texts=("images", THRESHOLDS))
        if row["images"] == "pooled"
    )
    assert float(hflip["cumulative"]) == pytest.approx(float(pooled[run.config.metrics[0]]), abs=1e-4)


@pytest.mark.slow
def test_views_are_tabled_and_then_predicted_out_of_fold_too(
    replayable: Path, tmp_path: Path, command: Command, task: str
) -> None:
    shutil.copytree(replayable, tmp_path / "outputs")
    folder = Path("outputs/t")
    assert "tta names no view" in command("predict", "t", "--views").stderr
    done = command("predict", "t", "--views", "tta=[hflip,scale1.5]")
    assert done.returncode == 0, done.stderr
    table, explained = done.stdout.split("\n\n")
    assert "by the config's own thresholds" in explained
    header, *rows = (line.split() for line in table.splitlines())
    assert header == list(COLUMNS)
    assert [row[0] for row in rows] == ["plain", "hflip", "scale1.5"]
    assert len(set(rows[0][1:4])) == 1
    assert rows[1][2] == rows[1][3]
    assert (folder / "tta.csv").read_text().splitlines()[1:] == [",".join(row) for row in rows]
    assert not list(folder.glob(".views*"))
    if task == task_names()[0]:
        two = ("trainer.devices=2", "trainer.strategy=ddp")
        said = run_on_two("predict", "t", "--views", "tta=[hflip,scale1.5]", *two)
        told = said.strip().split("\n\n")[0].splitlines()
        by_two = [line.split()[:4] for line in told]
        assert [by_two[0], *(row[0] for row in by_two[1:])] == [list(COLUMNS[:4]), *(row[0] for row in rows)]
        # Batches of another size, and so may the last digits of a network be.
        assert [list(map(float, row[1:])) for row in by_two[1:]] == [
            pytest.approx(list(map(float, row[1:4])), abs=2e-3) for row in rows
        ]
        assert not list(folder.glob(".views*"))

    files = [folder / TEST, *(folder / f"fold{fold}" / OOF for fold in (0, 1))]
    assert command("predict", "t").returncode == 0
    before = [path.stat().st_mtime_ns for path in files]
    done = command("predict", "t", "tta=[hflip]")
    assert done.stdout.count("made again, as the test images") == 2
    assert [Predictions(path).views for path in files] == [["hflip"]] * 3
    changed = [path.stat().st_mtime_ns for path in files]
    assert all(one != other for one, other in zip(before, changed, strict=True))
    assert "made again" not in command("predict", "t").stdout  # the views are kept with the run
    assert Predictions(folder / TEST).views == ["hflip"]
    assert command("submit", "t").returncode == 0
    assert command("predict", "t", "tta=[hflip,vflip]").returncode == 0
    assert "was predicted in" not in command("submit", "t").stdout
    if task != task_names()[0]:  # half a minute of CPU for masks where the CPU has no bf16, and the same for all
        return
    opened = Run.open("t", ["inference.precision=bf16-mixed"])
    assert not any(Predictions(path).is_as_asked(opened.config) for path in files)  # by which `run` goes, too
    assert command("predict", "t", "inference.precision=bf16-mixed").stdout.count("made again") == 2
    assert all(Predictions(path).is_as_asked(opened.config) for path in files)
    assert "made again" not in command("predict", "t").stdout
    assert [Predictions(path).how() for path in files] == ["plain, hflip, vflip in precision bf16-mixed"] * 3

"""`competition replay`: a run that predicts what it did, and runs that do not."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import pytorch_lightning as pl
import torch

from competition.comparison.update_ledger import begin, record
from competition.config.loading import task_names
from competition.files.images import read_image_size
from competition.prediction.stored import Predictions
from competition.runs.folder import CONFIG, LATEST, OOF, Run
from competition.runs.ledger import change_ledger, ledger_path

pytestmark = pytest.mark.slow

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def outputs(replayable: Path, data_dir: Path, sample: Path, command: Command, tmp_path: Path) -> Path:
    """Copy the run into the working folder, on images of its own, with its line in the ledger."""
    folder = Path(shutil.copytree(replayable, tmp_path / "outputs"))
    for path in folder.glob(f"t/fold*/{CONFIG}"):
        path.write_text(path.read_text().replace(str(sample), str(data_dir)))
    begin(Run.open("t").config, (), "1 x CPU")
    record("t")
    return folder


def weights(outputs: Path) -> Path:
    [path] = outputs.glob("t/fold1/best_*.pt")
    return path


def test_a_run_that_nothing_changed_predicts_the_same_to_the_last_bit(outputs: Path, command: Command) -> None:
    done = command("replay", "t")
    assert done.returncode == 0, done.stderr
    *folds, last = done.stdout.splitlines()
    assert folds == [f"fold{fold}: 12 images predicted again, the same to the last bit" for fold in (0, 1)]
    assert last in ("nothing known has changed since", "changed since: code that is not committed (then)")


def test_other_weights_are_found(outputs: Path, command: Command) -> None:
    path = weights(outputs)
    checkpoint = torch.load(path, weights_only=True)
    for name, values in checkpoint["state_dict"].items():
        if values.is_floating_point() and "running" not in name:
            checkpoint["state_dict"][name] = values * 1.5 + 0.1
    torch.save(checkpoint, path)
    done = command("replay", "t")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("outputs/t/fold1/oof.npz: ")
    assert "predicted again it differs by " in done.stderr


def test_another_image_is_found(outputs: Path, command: Command, data_dir: Path) -> None:
    image = data_dir / "train_images" / Predictions(outputs / "t/fold1" / OOF).image_ids[0]
    others = (data_dir / "train_images" / one for one in Predictions(outputs / "t/fold0" / OOF).image_ids)
    other = next(path for path in others if read_image_size(path, 3) == read_image_size(image, 3))
    shutil.copy(other, image)
    done = command("replay", "t")
    assert done.returncode == 1
    assert done.stderr.startswith(f"outputs/t/fold1/oof.npz: {image.name}: predicted again it differs by ")
    assert "changed since: data " in done.stderr


@pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all
def test_what_changed_is_named(outputs: Path, command: Command, data_dir: Path) -> None:
    change_ledger(ledger_path(), lambda lines: lines.update(t=replace(lines["t"], versions="torch 0.1; other 2")))
    (data_dir / "train_images" / "new.png").touch()
    last = command("replay", "t").stdout.splitlines()[-1]
    assert "; torch 0.1 -> " in last
    assert last.startswith("changed since: data ")
    assert last.endswith("other 2 -> none")
    ledger_path().unlink()
    assert "what has changed since is not known: outputs/runs.csv has no line for it" in command("replay", "t").stdout


@pytest.mark.parametrize("task", task_names()[:1], indirect=True)
def test_a_network_that_no_longer_fits_its_weights_is_one_line(outputs: Path, command: Command) -> None:
    path = weights(outputs)
    latest = path.with_name(LATEST)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"].popitem()
    for one in (path, latest):
        torch.save(checkpoint | {"pytorch-lightning_version": pl.__version__}, one)
    resumed = ("train", path.with_name(CONFIG), "fold=1", "--resume")
    for words, file in ((("replay", "t"), path), (("predict", "t"), path), (resumed, latest)):
        if file == latest:
            path.with_name(OOF).unlink()  # it has not ended
        done = command(*words)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(
            f"{file.relative_to(outputs.parent)}: no longer fits the network that its config builds"
        )
    config = outputs / "t/fold0" / CONFIG
    config.write_text(config.read_text() + "unheard_of: 1\n")
    assert "unheard_of: unknown key" in command("replay", "t").stderr

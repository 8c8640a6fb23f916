"""The average of a fold's best epochs: what it is, that it predicts only where it is better, and what is left of it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from tiny import PROJECT, tiny_words
from torch import Tensor
from trainings import assert_same, rows

from competition.config.loading import load_config, task_names
from competition.config.settings import Checkpoint, Config, Ema
from competition.data.folds import make_folds, read_folds
from competition.runs.folder import CHOICE, chosen_weights, weights_name
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample
from competition.training.averaging import Judge, averaged, choose_weights
from competition.training.checkpoint import epoch_paths, load_checkpoint
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule

Command = Callable[..., CompletedProcess[str]]
TASK = task_names()[0]
WORDS = (str(PROJECT / "configs" / f"{TASK}.yaml"), *tiny_words(TASK), "data.image_size=32", "sampler.share=natural")
SOUP = ("checkpoint.keep=3", "checkpoint.predict_with=auto")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["predict_with=soup"], "needs keep"), (["keep=3"], "expected soup or auto"), (["keep=1"], "greater than or")],
)
def test_a_soup_is_of_several_epochs_and_asked_for(given: list[str], expected: str) -> None:
    with pytest.raises(CompetitionError, match=expected):
        load_config([Path(WORDS[0])], [f"checkpoint.{word}" for word in given])


def test_an_average_is_the_mean_of_floats_and_the_first_of_whole_numbers(tmp_path: Path) -> None:
    paths = [tmp_path / f"epoch{number}.pt" for number in range(3)]
    for number, path in enumerate(paths):
        weights = {"w": torch.tensor([1.0, number**2]), "half": torch.tensor([number + 0.5]).half()}
        torch.save({"state_dict": weights | {"batches": torch.tensor(7 + number)}}, path)
    found = averaged(paths)
    torch.testing.assert_close(found["w"], torch.tensor([1.0, 5 / 3]))
    assert found["half"].dtype == torch.float16
    assert float(found["half"]) == 1.5
    assert int(found["batches"]) == 7


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("soup", "soup.pt"),
        ("unaveraged", "unaveraged.pt"),
        ("latest", "latest.pt"),
        ("best", "best_loss.pt"),
        (None, "best_loss.pt"),
    ],
)
def test_what_was_chosen_predicts(weights: str | None, name: str, tmp_path: Path) -> None:
    if weights is not None:
        each = [[one, 1, "1 2", 0.5, int(one == weights)] for one in ("best", "latest", "unaveraged", "soup")]
        write_csv(tmp_path / CHOICE, ["weights", "epoch", "epochs", "val/loss", "predicts"], each)
    assert weights_name(tmp_path, Checkpoint(keep=3, predict_with="auto")) == name
    assert weights_name(tmp_path, Checkpoint()) == "best_loss.pt"


def of_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Judge, FoldData]:
    """Return an untrained fold with what judges its weights."""
    monkeypatch.chdir(tmp_path)
    write_sample(TASK, Path("data"), size=24)
    config = load_config([Path(WORDS[0])], [*WORDS[1:], *SOUP])
    make_folds(config)
    table = Task(config.task).table.read_table(config)
    data = FoldData(config, table, read_folds(config, table))
    config.fold_folder.mkdir(parents=True)
    return config, Judge(config, table, data), data


def save(path: Path, state: dict[str, Tensor], module: CompetitionModule, epoch: int, value: float) -> None:
    given = {"state_dict": state, "hyper_parameters": dict(module.hparams), "epoch": epoch, "value": value}
    torch.save(given, path)


def test_a_soup_of_two_bad_halves_is_found_scored_with_its_own_norms_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, judge, data = of_fold(tmp_path, monkeypatch)
    good, folder = {name: value.clone() for name, value in judge.module.state_dict().items()}, config.fold_folder
    # Their average has the weights of a sane network, and statistics of batch norm that are of no network.
    learnt = {name for name, _ in judge.module.named_parameters()}
    noise = {name: torch.randn(value.shape) for name, value in good.items() if name in learnt}
    shifted = [good | {name: good[name] + sign * value for name, value in noise.items()} for sign in (1.0, -1.0)]
    for one in shifted:
        one |= {name: value + 50 for name, value in one.items() if name.endswith("running_mean")}
    for epoch, state in enumerate(shifted):
        save(folder / f"epoch{epoch}.pt", state, judge.module, epoch, 2.0 + epoch)
    save(folder / "best_loss.pt", shifted[0], judge.module, 0, 2.0)
    save(folder / "latest.pt", shifted[1], judge.module, 1, 3.0)
    choose_weights(config, data.table, data)
    assert weights_name(folder, config.checkpoint) == "soup.pt"
    soup = load_checkpoint(folder / "soup.pt")["state_dict"]
    means = [name for name in soup if name.endswith("running_mean")]
    assert means
    assert all(float(soup[name].abs().max()) < 40 for name in means)
    row = chosen_weights(folder, config.checkpoint)
    assert row is not None
    assert row["epochs"] == "0 1"
    judge.module.load_state_dict(soup)
    judge.trainer.validate(judge.module, datamodule=data, verbose=False)
    assert float(judge.trainer.callback_metrics["val/loss"]) == pytest.approx(float(row["val/loss"]), abs=1e-5)


def test_a_soup_that_is_no_better_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, judge, data = of_fold(tmp_path, monkeypatch)
    state, folder = judge.module.state_dict(), config.fold_folder
    broken = {name: value * torch.nan if value.is_floating_point() else value for name, value in state.items()}
    for name, kept, epoch in (
        ("epoch0", state, 0),
        ("epoch1", broken, 1),
        ("best_loss", state, 0),
        ("latest", broken, 1),
    ):
        save(folder / f"{name}.pt", kept, judge.module, epoch, 1.0 + epoch)
    (folder / "soup.pt").write_bytes(b"of an earlier choice")
    choose_weights(config, data.table, data)
    assert weights_name(folder, config.checkpoint) == "best_loss.pt"
    assert not (folder / "soup.pt").exists()


def test_where_the_moving_average_is_no_better_the_weights_of_the_last_step_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, judge, data = of_fold(tmp_path, monkeypatch)
    config = config.model_copy(update={"ema": Ema()})
    sane, folder = {name: value.clone() for name, value in judge.module.state_dict().items()}, config.fold_folder
    wild = {name: value * 30 if value.is_floating_point() else value for name, value in sane.items()}
    for name in ("epoch0", "epoch1", "best_loss", "latest"):
        save(folder / f"{name}.pt", wild, judge.module, int(name == "epoch1"), 9.0)
    torch.save(torch.load(folder / "latest.pt") | {"current_model_state": sane}, folder / "latest.pt")
    choose_weights(config, data.table, data)
    assert weights_name(folder, config.checkpoint) == "unaveraged.pt"
    assert_same(load_checkpoint(folder / "unaveraged.pt")["state_dict"], sane)
    assert not (folder / "soup.pt").exists()


@pytest.mark.slow
def test_the_best_epochs_are_kept_and_no_others_and_the_choice_is_told(command: Command, tmp_path: Path) -> None:
    write_sample(TASK, Path("data"), size=24)
    make_folds(load_config([Path(WORDS[0])], list(WORDS[1:])))
    done = command("train", *WORDS, *SOUP, "trainer.max_epochs=5", "optimizer.lr=0.05")
    assert done.returncode == 0, done.stderr
    folder = Path("outputs", TASK, "fold0")
    losses = [float(row["val/loss"]) for row in rows(folder)]
    best = sorted(range(5), key=lambda epoch: (losses[epoch], epoch))[:3]
    assert {path.name for path in epoch_paths(folder)} == {f"epoch{epoch}.pt" for epoch in best}
    assert "fold 0: predicts with " in done.stdout
    assert "which flatters" in done.stdout
    chosen = chosen_weights(folder, Checkpoint(keep=3, predict_with="auto"))
    assert chosen is not None
    assert float(chosen["val/loss"]) <= min(losses) + 1e-4

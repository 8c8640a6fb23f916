"""Which trainings a run is made of - folds, seeds, all images - and that several go on at the same time."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny import PROJECT, TINY, tiny_words
from trainings import assert_ended_like, run_here

from competition.config.loading import dump_config, load_config, task_names
from competition.config.settings import Config
from competition.pipeline import run as run_module
from competition.pipeline.run import trainings
from competition.prediction.stored import Predictions
from competition.runs.folder import (
    CONFIG,
    DONE,
    LATEST,
    OOF,
    READ_BY,
    Run,
    is_among,
    is_finished,
    refuse_changed_config,
    refuse_start,
    remember_config,
    remember_what_follows,
)
from competition.runs.ledger import ledger_path, read_ledger
from competition.support.errors import CompetitionError, StoppedError
from competition.support.machine import Share
from competition.support.processes import Job, run_jobs
from competition.support.time_limit import parse_max_time, time_left
from competition.tasks.made_up_images import write_sample
from competition.training.fit import lengthen

Command = Callable[..., CompletedProcess[str]]


def folders(path: Path, *words: str) -> list[str]:
    """Return the folders of a run's trainings, in order."""
    config = load_config([path], list(words))
    return [load_config([path], [*words, *each]).fold_folder.name for each in trainings(config)]


def test_a_run_trains_every_fold_unless_it_is_told_which(config_file: Path) -> None:
    assert folders(config_file, "data.num_folds=3") == ["fold0", "fold1", "fold2"]
    assert folders(config_file, "data.num_folds=3", "fold=1") == ["fold1"]
    assert folders(config_file, "data.num_folds=3", "fold=[2, 0]") == ["fold2", "fold0"]
    assert folders(config_file, "fold=[0, all]") == ["fold0", "foldall"]


def test_the_first_seed_keeps_its_folder_when_others_join_it(config_file: Path) -> None:
    assert folders(config_file, "fold=0", "seed=5") == ["fold0"]
    assert folders(config_file, "seed=[5, 6]") == ["fold0", "fold1", "fold0_seed6", "fold1_seed6"]
    assert folders(config_file, "seed=[5, 6]", "seed=7", "fold=0") == ["fold0"]


@pytest.mark.parametrize("word", ["fold=2", "fold=[0, 2]", "fold=some", "fold=-1", "seed=-1", "seed=[]"])
def test_a_fold_or_seed_that_cannot_be_is_refused(config_file: Path, word: str) -> None:
    with pytest.raises(CompetitionError, match=word.partition("=")[0]):
        load_config([config_file], [word, "data.num_folds=2"])


def test_exported_weights_alone_end_only_a_training_without_validation(tmp_path: Path) -> None:
    """A fold that predicts with its latest weights exports them before it predicts, and may be killed in between."""
    for name in ("fold0", "foldall"):
        (tmp_path / name).mkdir()
        (tmp_path / name / DONE).touch()
    assert not is_finished(tmp_path / "fold0")
    assert is_finished(tmp_path / "foldall")


def test_a_start_that_failed_does_not_stand_in_the_way_of_another_config(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained / "t" / "fold0", tmp_path / "fold0")
    other = load_config([folder / CONFIG], ["optimizer.lr=0.5"])
    with pytest.raises(CompetitionError, match=r"optimizer\.lr: .* -> 0\.5"):
        refuse_changed_config(folder, other)
    (folder / OOF).unlink()
    refuse_changed_config(folder, other)


def test_a_key_that_is_newer_than_a_training_and_at_its_default_changes_nothing(
    untrained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(untrained / "t" / "fold0", tmp_path / "fold0")
    config = load_config([folder / CONFIG])
    values = yaml.safe_load((folder / CONFIG).read_text())
    del values["data"]["group_pattern"], values["ema"], values["optimizer"]["weight_decay"], values["checkpoint"]
    (folder / CONFIG).write_text(yaml.safe_dump(values))
    refuse_changed_config(folder, config)
    with pytest.raises(CompetitionError, match=r"\(data\.group_pattern: None -> a\)"):
        refuse_changed_config(folder, load_config([folder / CONFIG], ["data.group_pattern=a"]))
    (folder / CONFIG).write_text(yaml.safe_dump(values | {"gone": 1}))
    with pytest.raises(CompetitionError, match="gone: 1 -> None"):
        refuse_changed_config(folder, config)


@pytest.fixture
def ended(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Copy a fold that was trained for an epoch and can go on; return its config."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(untrained / "t", "outputs/t")
    Path("outputs/t/fold0", LATEST).touch()
    return load_config([Path("outputs/t/fold0") / CONFIG])


@pytest.mark.parametrize("task", task_names()[:1], indirect=True)
def test_a_key_that_changes_nothing_begins_no_run_and_stops_none_that_has_it(ended: Config, command: Command) -> None:
    idle = load_config([ended.fold_folder / CONFIG], ["scheduler.name=cosine", "scheduler.gamma=0.3"])
    (key,) = idle.unused()
    assert key == "scheduler.gamma"
    for folder in ended.run_folder.glob("fold*"):
        (folder / CONFIG).write_text(dump_config(idle))
    refuse_start(idle.model_copy(update={"fold": 2}), resume=True)
    told = command("check", ended.fold_folder / CONFIG)
    assert told.returncode == 0, told.stderr
    assert "warning: scheduler.gamma" in told.stdout
    with pytest.raises(CompetitionError, match=r"^scheduler\.gamma"):
        refuse_start(idle.model_copy(update={"name": "other"}), resume=True)
    refused = command("check", ended.fold_folder / CONFIG, "name=other")
    assert refused.returncode == 1
    assert refused.stderr.startswith("scheduler.gamma")


def test_a_finished_fold_may_have_more_epochs_but_no_fewer_and_nothing_else(ended: Config) -> None:
    words = ["trainer.max_epochs=3", "trainer.devices=2", "tta=[hflip]"]
    longer, other = load_config([ended.fold_folder / CONFIG], words), "optimizer.lr=0.5"
    with pytest.raises(
        CompetitionError, match=r"latest\.pt: a training that ended, and is to have 3 epochs now; go on"
    ):
        refuse_start(longer, resume=False)
    refuse_start(longer, resume=True)
    for refused in (ended, load_config([ended.fold_folder / CONFIG], [*words, other])):
        with pytest.raises(CompetitionError, match="is trained already"):
            refuse_start(refused, resume=True)
    remember_config(ended.fold_folder, longer)
    assert not is_finished(ended.fold_folder)
    refuse_start(longer, resume=True)
    with pytest.raises(CompetitionError, match=r"trainer\.max_epochs: 3 -> 1"):
        refuse_changed_config(ended.fold_folder, ended)
    (ended.run_folder / "fold1" / LATEST).unlink(missing_ok=True)
    with pytest.raises(
        CompetitionError, match=r"fold1/latest\.pt: no such file, from which the training would go on to"
    ):
        refuse_start(longer.model_copy(update={"fold": 1}), resume=True)


def test_a_crash_while_a_fold_gets_more_epochs_leaves_one_that_either_config_goes_on_with(
    ended: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = load_config([ended.fold_folder / CONFIG], ["trainer.max_epochs=3"])
    before = (ended.fold_folder / CONFIG).read_bytes()
    monkeypatch.setattr("competition.runs.folder.dump_config", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        remember_config(ended.fold_folder, longer)
    assert (ended.fold_folder / CONFIG).read_bytes() == before
    for config in (ended, longer):
        refuse_start(config, resume=True)
        refuse_changed_config(ended.fold_folder, config)


def test_what_more_epochs_do_to_the_learning_rate_is_told_and_a_training_that_stopped_early_is_not_lengthened(
    ended: Config,
) -> None:
    latest = ended.fold_folder / LATEST
    torch.save(
        {"state_dict": {}, "epoch": 4, "callbacks": {"LatestAndBest": {}, "StopEarly": {"has_stopped": False}}}, latest
    )
    told = lengthen(ended, latest, 9)
    assert "oof.npz is deleted" in told
    assert "the learning rate jumps to its course over 9 epochs" in told
    torch.save({"state_dict": {}, "epoch": 4, "callbacks": {"StopEarly": {"has_stopped": True}}}, latest)
    with pytest.raises(CompetitionError, match="stopped early, after 5 epochs, and would not go on to 9"):
        lengthen(ended, latest, 9)


@pytest.mark.slow
def test_a_finished_fold_goes_on_to_where_as_many_epochs_from_the_start_end(command: Command, tmp_path: Path) -> None:
    """By a constant learning rate; by any other one it is told that this is not so."""
    task = task_names()[0]
    write_sample(task, tmp_path / "data", size=20)
    words = [str(PROJECT / "configs" / f"{task}.yaml"), *tiny_words(task), "data.image_size=32", "data.dir=data"]
    words += ["scheduler={name: constant, warmup: 0}", "optimizer.lr=1e-4", "early_stopping={patience: 9}"]
    assert command("folds", *words).returncode == 0
    for name, epochs in (("one", 1), ("two", 2)):
        done = command("train", *words, f"name={name}", f"trainer.max_epochs={epochs}")
        assert done.returncode == 0, done.stderr
    done = command("train", *words, "name=one", "trainer.max_epochs=2", "--resume")
    assert done.returncode == 0, done.stderr
    [told] = [
        line for line in done.stdout.splitlines() if "goes on to 2 epochs from outputs/one/fold0/latest.pt" in line
    ]
    assert "oof.npz is deleted and made anew" in told
    assert "learning rate" not in told
    assert_ended_like(Path("outputs/one/fold0"), Path("outputs/two/fold0"))
    assert load_config([Path("outputs/one/fold0") / CONFIG]).trainer["max_epochs"] == 2


def test_a_process_that_a_signal_ended_at_once_was_stopped_and_did_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    (tmp_path / "competition.py").write_text(script)
    job = Job("a", ["train"], tmp_path / "a.log")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StoppedError) as stopped:
        run_jobs([job])
    assert stopped.value.status == 128 + signal.SIGTERM


def test_what_follows_training_is_remembered_by_every_fold_whichever_is_named(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained / "t", tmp_path / "outputs" / "t")
    one = load_config([folder / "fold1" / CONFIG], ["tta=[hflip]", "optimizer.lr=0.5"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        remember_what_follows(one.run_folder, one)
    configs = [load_config([folder / name / CONFIG]) for name in ("fold0", "fold1")]
    assert [config.fold for config in configs] == [0, 1]
    assert all(config.tta == ["hflip"] for config in configs)
    assert all(config.optimizer.lr != one.optimizer.lr for config in configs)


@pytest.mark.slow
def test_folds_seeds_and_all_images_are_trained_and_predict_together(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Nothing of it differs by task. Side by side, in processes, is test_run.py's."""
    task = task_names()[0]
    write_sample(task, tmp_path / "data", size=24)
    words = [str(project / "configs" / f"{task}.yaml"), *tiny_words(task), f"data.dir={tmp_path / 'data'}"]
    asked = [*words, "name=t", "fold=[0, all]", "seed=[0, 1]", "trainer.max_epochs=1", "early_stopping={patience: 1}"]
    done = run_here(tmp_path, asked)
    assert done.returncode == 0, done.stdout
    monkeypatch.chdir(tmp_path)
    run = Run.open("t")
    assert [folder.name for folder in run.finished()] == ["fold0", "fold0_seed1", "foldall", "foldall_seed1"]
    assert [path.parent.name for path in run.out_of_fold_files()] == ["fold0", "fold0_seed1"]
    files = {path.name for path in (run.folder / "foldall").iterdir()}
    assert {"latest.pt", "latest.safetensors", "metrics.csv"} <= files
    assert not files & {OOF, "best_loss.pt"}
    assert not [told for told in recwarn if "is zero" in str(told.message)]  # Lightning's of no validation
    assert is_finished(run.folder / "foldall")
    test = Predictions(run.folder / "test.npz")
    assert len(test) == 6
    assert (run.folder / "submission.csv").is_file()
    line = read_ledger(ledger_path())["t"]
    assert (line.folds, line.seeds, list(line.fold_scores)) == ("0 all", "0 1", ["0"])
    assert run_here(tmp_path, asked).stdout.count("is done already") == 4


@pytest.mark.parametrize(("max_time", "left"), [("00:08:30:00", "00:08:29:30"), ({"seconds": 5}, "00:00:00:00")])
def test_what_a_run_has_used_of_its_time_is_not_given_to_its_next_training(max_time: object, left: str) -> None:
    assert time_left(max_time, 30) == left
    assert parse_max_time(time_left({"days": 3, "hours": 25, "minutes": 61}, 0.5)) == 4 * 86400 + 2 * 3600 + 59


def test_a_run_gives_each_training_what_is_left_of_its_time_when_it_starts(
    config: Config, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(run_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    said: list[list[str]] = []
    monkeypatch.setattr(run_module, "run_jobs", lambda jobs, *_: said.extend(job.late_words() for job in jobs))
    words = [*TINY, f"data.dir={config.data.dir}", "folds=[0, 1]", "trainer.max_time=00:00:00:50"]
    run_module._train(load_config([config_file], words), [config_file], words, Share(), 90.0)
    assert said == [["trainer.max_time=00:00:00:40"], ["trainer.max_time=00:00:00:10"]]


def test_a_job_that_fails_stops_those_that_wait_and_names_its_log(tmp_path: Path) -> None:
    jobs = [Job(name, ["train", f"{name}.yaml"], tmp_path / f"{name}.log") for name in ("a", "b", "c")]
    with pytest.raises(CompetitionError, match=r"`competition train` failed \(exit 1\); see .*[ab]\.log"):
        run_jobs(jobs, share=Share(2))
    assert "a.yaml: cannot be read" in (tmp_path / "a.log").read_text()
    assert not (tmp_path / "c.log").exists()


def test_images_are_not_turned_otherwise_than_a_training_saw_them(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained / "t" / "fold0", tmp_path / "fold0")
    values = yaml.safe_load((folder / CONFIG).read_text())
    values["data"].pop("exif_orientation", None)  # as of a training that is older
    (folder / CONFIG).write_text(yaml.safe_dump(values))
    refuse_changed_config(folder, load_config([folder / CONFIG], ["data.exif_orientation=ignore"]))
    with pytest.raises(CompetitionError, match=r"\(data\.exif_orientation: ignore -> apply\)"):
        refuse_changed_config(folder, load_config([folder / CONFIG], ["data.exif_orientation=apply"]))
    assert is_among("data.exif_orientation: ignore -> apply", READ_BY)

"""Tuning on out-of-fold predictions: what it writes, that it does not flatter, and that its thresholds are used."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import PROJECT

from competition.config.settings import Checkpoint, Config, with_decode
from competition.pipeline.run import _in_words, _tune
from competition.runs.folder import CONFIG, CV, OOF, POSTPROCESS, Run
from competition.runs.ledger import ledger_path, read_ledger
from competition.scoring.out_of_fold import OutOfFold, folds_of_files, lower_is_better
from competition.scoring.tune import (
    Tuned,
    describe_choice,
    describe_staleness,
    describe_tuning,
    honest_scores,
    is_tuned,
    tune,
)
from competition.support.atomic_files import write_csv
from competition.support.freshness import MadeFrom
from competition.tasks.contract import Task

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def tuned(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Tuned]:
    """Tune the run once."""
    folder = shutil.copytree(untrained / "t", tmp_path_factory.mktemp("tuned") / "t")
    run = Run.open(str(folder))
    return run, tune(run)


@pytest.fixture
def predicted(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Copy the predictions for a test that changes them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(untrained, tmp_path / "outputs")
    return Run.open("t")


def opened(run: Run) -> OutOfFold:
    table = Task(run.config.task).table.read_table(run.config)
    return OutOfFold(run.config, table, folds_of_files(run.out_of_fold_files()))


def test_it_is_said_how_much_better_the_best_epoch_is_on_its_own_fold(predicted: Run) -> None:
    assert describe_choice(predicted) == []  # nothing is known of the epochs
    metric = predicted.config.metrics[0]
    for fold in (0, 1):
        rows = [[0, 3, 0.1], [1, 1, 0.8 + fold / 10], [2, 2, 0.7], [3, 2, 0.5], [4, 2, 0.6]]
        write_csv(predicted.folder / f"fold{fold}" / "metrics.csv", ["epoch", "val/loss", f"val/{metric}"], rows)
    (line,) = describe_choice(predicted)
    assert "its best by val/loss on the images it is scored on" in line
    assert f"+0.2500 in {metric} against the mean of its last epochs, 3 at most (fold0 +0.2000, fold1 +0.3000)" in line
    latest = predicted.config.model_copy(update={"checkpoint": Checkpoint(predict_with="latest")})
    assert describe_choice(replace(predicted, config=latest)) == []


def test_tuning_writes_a_score_for_each_fold_their_spread_and_all_pooled(tuned: tuple[Run, Tuned]) -> None:
    run, found = tuned
    with (run.folder / CV).open(newline="") as file:
        rows = {row["images"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["fold0", "fold1", "mean", "std", "pooled"]
    for way, scores in (("", found.before), ("_tuned", found.pooled), ("_cross_fitted", found.cross_fitted)):
        assert scores is not None
        for name, value in scores.items():
            assert float(rows["pooled"][name + way]) == pytest.approx(value, abs=1e-6)
            each = [float(rows[fold][name + way]) for fold in ("fold0", "fold1")]
            assert float(rows["mean"][name + way]) == pytest.approx(np.mean(each), abs=2e-6)
            assert float(rows["std"][name + way]) == pytest.approx(np.std(each, ddof=1), abs=2e-6)


def test_the_cross_fitted_score_is_that_of_thresholds_found_on_the_other_folds(tuned: tuple[Run, Tuned]) -> None:
    run, found = tuned
    images = opened(run)
    search = Task(run.config.task).tuning.search(run.untuned, images, len(images.table.classes))
    configs = [with_decode(run.untuned, search.best(np.flatnonzero(images.fold != fold))) for fold in (0, 1)]
    answers = [images.answer(index, configs[images.fold[index]]) for index in range(len(images))]
    assert found.cross_fitted == pytest.approx(images.scores_of(lambda index: answers[index]))


def test_thresholds_are_no_worse_on_the_images_they_were_found_on_and_kept_only_where_they_pay(
    tuned: tuple[Run, Tuned],
) -> None:
    run, found = tuned
    images = opened(run)
    assert found.cross_fitted is not None
    before, pooled, crossed = (
        images.merit(next(iter(scores.items()))) for scores in (found.before, found.pooled, found.cross_fitted)
    )
    assert pooled >= before - 1e-9
    assert found.is_kept == (crossed >= before)
    assert any("does not pay" in line for line in describe_tuning(found)) == (not found.is_kept)


@dataclass
class Finding:
    """A search that finds the same, whatever it looks at."""

    decode: dict[str, Any]

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        return self.decode


@pytest.mark.parametrize(("gained", "is_kept"), [(-0.1, False), (0.0, True), (0.1, True)])
def test_thresholds_that_lose_on_the_other_folds_are_not_handed_in_by(
    predicted: Run, other_decode: dict[str, Any], monkeypatch: pytest.MonkeyPatch, gained: float, is_kept: bool
) -> None:
    name = predicted.config.metrics[0]
    crossed = 0.5 - gained if lower_is_better(predicted.config, name) else 0.5 + gained
    measured = iter([0.5, 0.9, crossed])  # as the config has it, tuned on the same images, cross-fitted

    def scores_by_fold(images: OutOfFold, configs: list[Config]) -> tuple[list[dict[str, float]], dict[str, float]]:
        scores = dict.fromkeys(predicted.config.metrics, next(measured))
        return [scores] * len(configs), scores

    monkeypatch.setattr(OutOfFold, "scores_by_fold", scores_by_fold)
    monkeypatch.setattr(Task(predicted.config.task).tuning, "search", lambda *_: Finding(other_decode))
    found = tune(predicted)
    assert found.is_kept == is_kept
    assert any("does not pay" in line for line in describe_tuning(found)) != is_kept
    own = predicted.untuned.decode
    expected = with_decode(predicted.untuned, other_decode).decode if is_kept else own
    stored = yaml.safe_load((predicted.folder / POSTPROCESS).read_text())
    assert stored == {"decode": expected.model_dump(mode="json")}
    run = Run.open("t")
    how, scores = honest_scores(run)
    assert how == ("cross-fitted" if is_kept else "by the config's own thresholds")
    assert scores[name] == pytest.approx(crossed if is_kept else 0.5)


def test_thresholds_given_to_a_tuning_that_does_not_pay_are_said_to_be_given(
    predicted: Run, command: Command, task: str, other_decode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task(task).tuning, "search", lambda *_: Finding({}))
    [(key, value)] = other_decode.items()
    done = command("tune", "t", f"decode.{key}={value}")
    assert "out of fold, by thresholds given by hand:  " in done.stdout
    run = Run.open("t")
    assert getattr(run.config.decode, key) == value
    assert honest_scores(run) == (
        "by thresholds given by hand",
        pytest.approx(opened(run).scores(run.config), abs=1e-6),
    )
    assert read_ledger(ledger_path())["t"].thresholds == "by thresholds given by hand"


def test_a_run_is_decoded_by_what_was_tuned_unless_the_command_line_says_otherwise(predicted: Run) -> None:
    keys = list(type(predicted.config.decode).model_fields)
    if not keys:
        pytest.skip("this task has no threshold")
    tune(predicted)
    path = predicted.folder / POSTPROCESS
    values = yaml.safe_load(path.read_text())
    assert Run.open("t").config.decode.model_dump(mode="json") == values["decode"]
    assert Run.open("t").untuned.decode == predicted.untuned.decode
    assert is_tuned(Run.open("t"))
    path.touch()
    (predicted.folder / "fold0" / OOF).touch()
    assert not is_tuned(Run.open("t"))


def test_a_training_that_has_not_ended_is_said_to_be_left_out(predicted: Run, command: Command) -> None:
    assert "left out" not in command("tune", "t").stdout
    (predicted.folder / "fold1" / OOF).unlink()
    assert command("tune", "t").stdout.startswith("left out: outputs/t/fold1 has no oof.npz, ")


def test_thresholds_of_other_predictions_are_warned_of(predicted: Run) -> None:
    tune(predicted)
    assert not describe_staleness(Run.open("t"))
    (predicted.folder / "fold0" / OOF).touch()
    (line,) = describe_staleness(Run.open("t"))
    assert line.endswith("tune again with `competition tune t`")
    predicted.folder.rename("outputs/u")
    (line,) = describe_staleness(Run.open("u"))
    assert line.endswith("tune again with `competition tune u`")


def test_thresholds_edited_by_hand_are_kept_and_have_no_score(
    tuned: tuple[Run, Tuned],
    other_decode: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.open(str(shutil.copytree(tuned[0].folder, "outputs/t")))
    path, scores = run.folder / POSTPROCESS, honest_scores(run)
    values = yaml.safe_load(path.read_text())
    path.write_text(f"# the same\n{yaml.safe_dump(values, default_flow_style=True)}")
    assert (describe_staleness(Run.open("t")), honest_scores(Run.open("t"))) == ([], scores)
    edited = yaml.safe_dump({"decode": values["decode"] | other_decode})
    path.write_text(edited)
    (line,) = describe_staleness(Run.open("t"))
    assert line.startswith("warning: outputs/t/postprocess.yaml: other thresholds stand there than tuning wrote; ")
    assert line.endswith("no score is of them; `competition tune t` finds others")
    (run.folder / "fold0" / OOF).touch()  # it would be tuned anew
    _tune(Run.open("t"))
    assert line.removeprefix("warning: ") in capsys.readouterr().out
    assert path.read_text() == edited
    assert "not scored: " in _in_words(Run.open("t"))
    assert tune(Run.open("t")).handed_in == values["decode"]  # as it was asked for
    assert describe_staleness(Run.open("t")) == []


def test_what_a_tuning_that_was_killed_or_a_copy_leaves_is_tuned_again(
    tuned: tuple[Run, Tuned],
    other_decode: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What lies beside the note of an earlier tuning is nobody's edit."""
    monkeypatch.chdir(tmp_path)
    run = Run.open(str(shutil.copytree(tuned[0].folder, "outputs/t")))
    cv = run.folder / CV

    def is_taken() -> bool:
        lines = describe_staleness(Run.open("t"))
        assert all(" were found on what is not known (no note of this cv.csv is beside it); " in line for line in lines)
        return not lines and is_tuned(Run.open("t"))

    shutil.copy2(cv, "whole.csv")
    cv.touch()  # as a copy has it
    assert is_taken()
    cv.write_text(f"{cv.read_text()}\n")
    (run.folder / POSTPROCESS).write_text(yaml.safe_dump({"decode": other_decode}))
    assert not is_taken()
    shutil.copy2("whole.csv", cv)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MadeFrom, "note", killed)
    monkeypatch.setattr(Task(run.config.task).tuning, "search", lambda *_: Finding(other_decode))
    monkeypatch.setattr(OutOfFold, "scores_by_fold", lambda _, configs: ([found] * len(configs), found))
    found = dict.fromkeys(run.config.metrics, 0.5)
    with pytest.raises(KeyboardInterrupt):
        tune(Run.open("t"))
    assert cv.is_file()
    assert not is_taken()


def test_what_earlier_versions_tuned_is_taken_as_they_left_it(
    tuned: tuple[Run, Tuned], other_decode: dict[str, Any], command: Command
) -> None:
    run = Run.open(str(shutil.copytree(tuned[0].folder, "outputs/t")))
    note = run.folder / f".{CV}.sources"
    known = json.loads(note.read_text())
    note.write_text(json.dumps({key: "" if key == "also" else known[key] for key in ("made", "also", "sources")}))
    (run.folder / POSTPROCESS).write_text(yaml.safe_dump({"decode": other_decode}))
    assert describe_staleness(Run.open("t")) == []
    assert is_tuned(Run.open("t"))


def test_code_that_decodes_or_scores_has_it_tuned_anew_once_it_is_edited(
    task: str, tuned: tuple[Run, Tuned], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = shutil.copytree(PROJECT / "competition" / "tasks", tmp_path / "competition" / "tasks")
    for module in ("scoring.code_files", "support.freshness"):
        monkeypatch.setattr(f"competition.{module}.PACKAGE", tasks.parent)
    run = Run.open(str(shutil.copytree(tuned[0].folder, "outputs/t")))
    for name in (f"{task}/dataset.py", f"{task}/model.py", "contract.py"):
        edit(tasks / name)
    assert is_tuned(run)
    for name in (f"{task}/decode.py", f"{task}/tuning.py", f"{task}/settings", "user_metrics.py"):
        (file, *_) = sorted(tasks.glob(f"{name}/*.py")) or sorted(tasks.glob(f"{name}*"))
        before = file.read_text()
        edit(file)
        (line,) = describe_staleness(run)
        assert f" were found by other code than is there now ({file}); tune again with" in line
        assert not is_tuned(run)
        file.write_text(before)  # at another time, as git does
        assert is_tuned(run)
    note = run.folder / f".{CV}.sources"
    note.write_text(json.dumps({key: one for key, one in json.loads(note.read_text()).items() if key != "code"}))
    (line,) = describe_staleness(run)  # by an earlier version: what is newer counts
    assert ", by its time); tune again with `competition tune t`" in line


def edit(file: Path) -> None:
    with file.open("a") as opened:
        opened.write("# edited\n")


def test_a_file_that_changes_while_tuning_goes_on_was_not_tuned_by(
    predicted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = predicted.folder / "fold0" / CONFIG

    def search(*_: object) -> Finding:
        *lines, mark = config.read_text().splitlines(keepends=True)
        config.write_text("".join([*lines, "# by hand\n", mark]))
        return Finding({})

    monkeypatch.setattr(Task(predicted.config.task).tuning, "search", search)
    tune(predicted)
    assert not is_tuned(predicted)


def test_other_metrics_are_tuned_anew(predicted: Run) -> None:
    metrics = predicted.config.metrics
    tune(Run.open("t", [f"metrics=[{metrics[0]}]"]))
    assert is_tuned(Run.open("t", [f"metrics=[{metrics[0]}]"]))
    assert not is_tuned(Run.open("t", [f"metrics=[{', '.join(metrics)}]"]))


def test_a_fold_keeps_its_name_where_others_are_missing(predicted: Run) -> None:
    (predicted.folder / "fold0").rename(predicted.folder / "fold2")
    tune(predicted)
    rows = (predicted.folder / CV).read_text().splitlines()
    assert [row.partition(",")[0] for row in rows[1:3]] == ["fold1", "fold2"]


def test_the_command_says_what_it_found_and_where_it_is(predicted: Run, command: Command) -> None:
    done = command("tune", "t")
    assert done.returncode == 0, done.stderr
    assert "cross-fitted" in done.stdout
    assert done.stdout.splitlines()[-1] == "written to outputs/t/postprocess.yaml and cv.csv"


def test_a_single_fold_is_told_that_its_tuned_score_flatters(predicted: Run) -> None:
    (predicted.folder / "fold1" / OOF).unlink()
    tuned = tune(predicted)
    assert tuned.cross_fitted is None
    assert "flatters" in describe_tuning(tuned)[-1]


def test_seeds_of_a_fold_are_averaged_into_one_prediction(predicted: Run) -> None:
    config: Config = predicted.config
    first = predicted.folder / "fold0" / OOF
    images = OutOfFold(config, Task(config.task).table.read_table(config), [[first, first]])
    alone = OutOfFold(config, images.table, [[first]])
    assert len(images) == len(alone)
    assert images.scores(config) == pytest.approx(alone.scores(config), abs=1e-3)  # masks are stored in 16 bits

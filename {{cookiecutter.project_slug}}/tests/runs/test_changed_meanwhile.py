"""What changes while something is made of it: what was made is of what was there before, and is made again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from competition.checking import extra_images
from competition.checking.check import check
from competition.checking.near_duplicates import Thumbnails
from competition.config.loading import load_config, task_names
from competition.data.extra_sets import duplicate_sources, duplicates_path, learnt_files, refuse_older_pseudo
from competition.data.folds import folds_path
from competition.files.crops import CROPS, crop_sources
from competition.files.maps import INDEX, MAPS
from competition.pipeline.train_fold import note_tables
from competition.prediction import predict
from competition.runs.folder import BEGUN_BY, BUNDLE, CONFIG, LATEST, OOF, TEST, Run, remember_config
from competition.runs.provenance import describe_other_tables
from competition.submission import write_crops, write_maps
from competition.submission.write_pseudo_labels import Choice, begin_pseudo, make_pseudo
from competition.support import freshness
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom, is_up_to_date, sha256
from competition.support.optional_rooms import has_room
from competition.training.checkpoint import exported_weights

Command = Callable[..., CompletedProcess[str]]
one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all


@pytest.fixture
def run(runs: Path) -> Run:
    return Run.open("t")


def train_again(run: Run) -> None:
    """Give the first fold what another one ended with."""
    for name in (OOF, "best_loss.pt"):
        shutil.copy(run.folder / "fold1" / name, run.folder / "fold0" / name)


@one_task
def test_weights_that_are_trained_while_they_predict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path, of_fold = run.folder / TEST, run.folder / "fold0" / TEST
    monkeypatch.setattr(predict, "predict_images", lambda *_: train_again(run))
    predict.predict_test(run)
    assert not is_up_to_date(path, run.test_sources())
    weights = run.folder / "fold0" / "best_loss.pt"
    shutil.copy(run.folder.parent / "u" / "fold0" / weights.name, weights)

    def of_folds(*given: object) -> None:
        for fold in ("fold0", "fold1"):
            shutil.copy(path, run.folder / fold / TEST)
        train_again(run)

    monkeypatch.setattr(predict, "predict_images", of_folds)
    predict.predict_test_by_fold(run)
    assert not is_up_to_date(of_fold, [run.config.sample_submission, weights])


@one_task
def test_a_run_that_is_trained_while_its_crops_and_maps_are_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, *_: object) -> None:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        train_again(run)

    monkeypatch.setattr(write_crops, "refuse_placeless", lambda _: None)
    monkeypatch.setattr(write_crops, "write_csv", write)
    monkeypatch.setattr(write_maps, "refuse_mapless", lambda _: None)
    monkeypatch.setattr(write_maps, "write_maps", lambda folder, *_: write(folder / INDEX))
    for make, path in ((write_crops.make_crops, CROPS), (write_maps.make_maps, f"{MAPS}/{INDEX}")):
        shutil.copy(run.folder.parent / "u" / "fold0" / OOF, run.folder / "fold0" / OOF)
        make(run)
        assert not is_up_to_date(run.folder / path, crop_sources(run.folder))


@one_task
@pytest.mark.skipif(not has_room("bundle"), reason="this repo has no bundles")
def test_a_run_whose_config_changes_while_it_is_bundled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from competition.bundle import build
    from competition.bundle.manifest import MANIFEST

    exported, is_changed = run.folder / "fold0" / "best_loss.safetensors", [False]

    def write(_: Run, __: list[str], folder: Path, **___: object) -> list[str]:
        folder.mkdir()
        (folder / MANIFEST).touch()
        exported_weights(exported.with_suffix(".pt"))
        if is_changed[0]:
            shutil.copy(run.folder / "fold1" / CONFIG, run.folder / "fold0" / CONFIG)
        return []

    monkeypatch.setattr(build, "_build", write)
    monkeypatch.setattr(build, "_prove", lambda *_: "")
    for changed in (False, True):
        exported.unlink()  # which the work itself makes again
        is_changed[0] = changed
        bundle, _ = build.make_bundle(run)
        assert is_up_to_date(bundle / MANIFEST, run.bundle_sources()) == (not changed)
    assert bundle == run.folder / BUNDLE


@one_task
@pytest.mark.skipif(not has_room("pages"), reason="this repo has no pages")
def test_a_run_that_is_tuned_while_its_report_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from competition.pages import report

    monkeypatch.setattr(report, "write_page", lambda path, *_: (path.touch(), (run.folder / "cv.csv").touch()))
    for name in ("look_at", "galleries", "suspects", "legend", "_gallery", "_thresholds", "_answers"):
        monkeypatch.setattr(report, name, lambda *_: None)
    report.write_report(run)
    assert not report.is_reported(run)


@one_task
def test_a_table_that_is_edited_while_its_images_are_compared(
    words: list[str], data_dir: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["data.extra=[{csv: more.csv, images: train_images}]", "data.near_duplicates=true"]
    config, table = load_config([Path(words[0])], [*words[1:], *more]), data_dir / "more.csv"
    shutil.copy(data_dir / "train.csv", table)
    near_duplicates = extra_images.near_duplicates

    def edit(thumbnails: Thumbnails) -> np.ndarray:
        header, *rows = table.read_text().splitlines()
        table.write_text("\n".join([header, *rows[::-1]]) + "\n")
        return near_duplicates(thumbnails)

    monkeypatch.setattr(extra_images, "near_duplicates", edit)
    check(config)
    assert not is_up_to_date(duplicates_path(config), duplicate_sources(config))


def trained_by(run: Run, data: Path) -> Run:
    """Let its trainings have begun by the tables of a folder."""
    shutil.copy(folds_path(run.config), data / "folds.csv")
    own = Run.open("t", [f"data.dir={data}", f"data.folds={data / 'folds.csv'}"])
    for folder in own.finished():
        (folder / BEGUN_BY).touch()
        MadeFrom.now(folder / BEGUN_BY, learnt_files(own.config)).note()
    return own


@one_task
@pytest.mark.parametrize("name", ["train.csv", "folds.csv"])
def test_that_a_table_is_another_than_trainings_learnt_from_is_told_once(run: Run, name: str, data_dir: Path) -> None:
    own = trained_by(run, data_dir)
    header, *rows = (data_dir / name).read_text().splitlines()
    for line_end in ("\r\n", "\n"):  # as spreadsheets write them, and as it was
        (data_dir / name).write_text(line_end.join([header, *rows, ""]), newline="")
        assert describe_other_tables(own) == []
    (data_dir / name).write_text("\n".join([header, *rows[::-1]]) + "\n")
    (line,) = describe_other_tables(own)
    said = f"{own.folder / 'fold0'} was trained with another {data_dir / name} than is there now (so were 1 more)"
    assert line == f"warning: {said}; train anew, under another name"


@one_task
def test_a_table_is_read_once_for_all_trainings_that_learnt_from_it(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, read = trained_by(run, data_dir), list[Path]()
    tables = learnt_files(own.config)
    monkeypatch.setattr(freshness, "sha256", lambda path: (read.append(path), sha256(path))[1])
    for path in tables:
        os.utime(path, (1e9, 1e9 + 1))
    assert describe_other_tables(own) == []
    assert sorted(read) == sorted(path.absolute() for path in tables)


@one_task
def test_pseudo_labels_of_a_run_that_was_trained_again_are_refused(
    run: Run, words: list[str], command: Command
) -> None:
    path, _ = make_pseudo(run, Choice(0), {0: run.folder / TEST, 1: run.folder / TEST}, begin_pseudo(run))
    student = [*words, f"data.pseudo={path}", "name=s"]
    learnt = load_config([Path(student[0])], student[1:])
    refuse_older_pseudo(learnt.data)
    train_again(run)
    with pytest.raises(CompetitionError, match=r"pseudo\.csv: is older than"):
        refuse_older_pseudo(learnt.data)
    said = "outputs/t/pseudo.csv: is older than outputs/t/fold0/oof.npz; make it anew with `competition pseudo t`"
    assert command("folds", *student).returncode == 0
    assert f"warning: {said}" in command("check", *student).stdout
    done = command("train", *student)
    assert (done.returncode, done.stderr) == (1, f"{said}, in the project of that run\n")
    remember_config(learnt.fold_folder, learnt)
    (learnt.fold_folder / LATEST).touch()
    note_tables(learnt)  # which has begun by them, and goes on
    (line,) = describe_other_tables(Run.open("u", [f"data.pseudo={path}"]))
    assert line.startswith(f"warning: {said}")
    make_pseudo(run, Choice(0), {0: run.folder / TEST}, begin_pseudo(run))
    refuse_older_pseudo(learnt.data)

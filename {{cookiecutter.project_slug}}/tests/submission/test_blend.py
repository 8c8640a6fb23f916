"""Several runs as one: averages, weights found on out-of-fold, and runs that do not fit together."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from task_facts import facts_of
from tiny import PROJECT

from competition.config.loading import load_config
from competition.config.settings import Config
from competition.data.dataset import ImageDataset
from competition.data.extra_sets import Extra, own_config
from competition.data.training_part import JoinedTable
from competition.prediction.averages import average_predictions
from competition.prediction.predict import load_network, predict_images
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.folder import CV, OOF, POSTPROCESS, TEST, Run
from competition.scoring.out_of_fold import OutOfFold, describe_scores, score_predictions
from competition.scoring.tune import CROSSED, OWN, THRESHOLDS, is_tuned
from competition.submission import blend_weights
from competition.submission.blend_weights import Weights, fit_weights
from competition.submission.submit import Presence, open_runs, share_warnings
from competition.submission.write_pseudo_labels import Choice, begin_pseudo, make_pseudo, within_quota
from competition.support.atomic_files import read_rows
from competition.tasks.contract import Prediction, Target, Task

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def two_runs(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return outputs/ of runs a and b with out-of-fold and test predictions of networks that have learnt nothing."""
    outputs = tmp_path_factory.mktemp("two") / "outputs"
    for seed, name in enumerate("ab"):
        shutil.copytree(untrained / "t", outputs / name)
        run = Run.open(str(outputs / name))
        task = Task(run.config.task)
        table = task.table.read_table(run.config)
        torch.manual_seed(seed)
        network = task.model.build_network(run.config, len(table.classes)).eval()
        for folder in run.finished():
            own = load_config([folder / "config.yaml"], [f"name={name}"])
            (folder / "config.yaml").write_text(yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False))
            ids = np.array(Predictions(folder / OOF).image_ids, dtype=object)
            predict_images(own, [network], ImageDataset(own, ids, table=table), folder / OOF, table.classes)
        ids = task.submission.read_test_ids(run.config, table.classes)
        predict_images(run.config, [network], ImageDataset(run.config, ids), run.folder / TEST, table.classes)
    return outputs


@pytest.fixture
def runs(two_runs: Path, command: Command, tmp_path: Path) -> Path:
    """Copy both into the working folder."""
    return Path(shutil.copytree(two_runs, tmp_path / "outputs"))


def assert_average(found: Path, sources: Sequence[Path], weights: Sequence[float] | None = None) -> None:
    """Compare a file with the task's average of others, image by image."""
    config = Run.open("a").config
    if weights is not None:
        kept = [index for index, weight in enumerate(weights) if weight > 0]
        sources, weights = [sources[index] for index in kept], [weights[index] for index in kept]
    stored, others = Predictions(found), [Predictions(path) for path in sources]
    assert stored.image_ids == others[0].image_ids
    for index in range(len(stored)):
        expected = Task(config.task).decode.average([other[index] for other in others], config, weights)
        for key, values in expected.items():
            np.testing.assert_array_equal(stored[index][key], values)


def test_the_order_of_runs_and_their_resolution_cost_a_blend_no_detail(tmp_path: Path, task: str) -> None:
    key = {"segmentation": "probabilities", "points": "heatmap"}.get(task)
    if key is None:
        pytest.skip("no maps")
    config = load_config([PROJECT / "configs" / f"{task}.yaml"])
    fine = (np.indices((16, 24)).sum(0) % 2).astype(np.float16)[None]
    coarse, shares = np.full((1, 4, 6), 0.5, np.float16), (0.75, 0.25)
    for name, values in (("fine", fine), ("coarse", coarse)):
        with PredictionWriter(tmp_path) as writer:
            writer.add("a", 32, 48, {key: values})
            writer.finish(tmp_path / f"{name}.npz", ["object"])
    for names, weights in ((("fine", "coarse"), shares), (("coarse", "fine"), shares[::-1])):
        sources = [Predictions(tmp_path / f"{name}.npz") for name in names]
        average_predictions(sources, tmp_path / "both.npz", config, weights)
        np.testing.assert_allclose(Predictions(tmp_path / "both.npz")[0][key], 0.75 * fine + 0.125, atol=1e-3)


def test_a_blend_is_a_run_of_its_own_that_is_tuned_and_submitted_like_any(runs: Path, command: Command) -> None:
    done = command("submit", "a", "b")
    assert done.returncode == 0, done.stderr
    assert "outputs/a+b/submission.csv  (6 images, checked)" in done.stdout
    assert "weights:  a 0.500, b 0.500\nout of fold:  " in done.stdout
    assert command("submit", "a", "b", "outputs/a").stderr.startswith("a: is named twice")
    for name in (TEST, f"fold0/{OOF}", f"fold1/{OOF}"):
        assert_average(runs / "a+b" / name, [runs / one / name for one in "ab"])
    assert yaml.safe_load((runs / "a+b/blend.yaml").read_text())["sources"] == ["a", "b"]
    again = command("submit", "a+b")
    assert again.returncode == 0, again.stderr
    assert "rows that differ from the submission before: 0 of " in again.stdout
    assert command("predict", "a+b").stderr.startswith("outputs/a+b: is a blend of a, b and has no networks;")


def test_weights_may_be_given_and_a_run_without_weight_does_not_count(runs: Path, command: Command) -> None:
    assert command("submit", "a", "b", "--weights", "3,1", "--name", "x").returncode == 0
    assert_average(runs / "x" / TEST, [runs / one / TEST for one in "ab"], [0.75, 0.25])
    assert command("submit", "a", "b", "--weights", "0,2", "--name", "x").returncode == 0
    assert_average(runs / "x" / TEST, [runs / "b" / TEST], [1])


def test_weights_are_found_on_out_of_fold_or_refused_where_there_is_nothing_to_fit(
    runs: Path, command: Command, task: str
) -> None:
    silence(runs / "b" / "fold0" / OOF)
    silence(runs / "a" / "fold1" / OOF)
    done = command("submit", "a", "b", "--weights", "fit", "--name", "x")
    if done.returncode:
        assert done.stderr.startswith("--weights fit: ")
        assert not (runs / "x").exists()
        return
    config, sources = Run.open("a").config, {fold: [] for fold in ("fold0", "fold1")}
    for fold, each in sources.items():
        each += [Predictions(runs / one / fold / OOF) for one in "ab"]
    found = fit_weights(config, sources)
    assert sum(found.shares) == pytest.approx(1, abs=1e-3)
    assert min(found.shares) >= 0
    # A fold's truth has no say in its own weights: on fold 1, which those of fold 0 are found on, a is silent.
    assert found.by_fold == {"fold0": [0, 1], "fold1": [1, 0]}
    about = yaml.safe_load((runs / "x/blend.yaml").read_text())
    assert about["fit"]["weights"] == found.shares
    for fold, weights in found.by_fold.items():
        files = [runs / one / fold / OOF for one in "ab"]
        assert_average(runs / "x" / fold / OOF, files, weights if about["fit"]["is_kept"] else about["weights"])
    shutil.rmtree(runs / "a" / "fold1")
    assert "which flatters" in command("submit", "a", "b", "--weights", "fit", "--name", "y").stdout


DIGEST = """
from zlib import crc32

def score(solution, submission, row_id_column_name):
    return crc32(submission.to_csv().encode()) / 2**32
"""


def test_weights_that_were_found_are_kept_where_the_first_metric_is_better(
    runs: Path, command: Command, task: str
) -> None:
    if not facts_of(task).is_fitted:
        return
    Path("metric.py").write_text(DIGEST)
    for fold in ("fold0", "fold1"):
        silence(runs / "b" / fold / OOF)
    kept = []
    for is_lower_better in (False, True):
        host = ["host_metric.file=metric.py", f"host_metric.lower_is_better={is_lower_better}"]
        done = command("submit", "a", "b", "--weights", "fit", "--name", "x", *host)
        assert done.returncode == 0, done.stderr
        about = yaml.safe_load((runs / "x/blend.yaml").read_text())
        fit = about["fit"]
        kept.append(about["weights"])
        assert fit["weights"] == [1, 0]
        assert fit["score"] == fit["score_alone"]  # as b says nothing, a alone is what was found
        assert fit["is_kept"] is False  # which is more to explain than a run
        is_alone = (fit["score_alone"] < fit["score_of_equal"]) is is_lower_better
        assert about["weights"] == ([1, 0] if is_alone else [0.5, 0.5])
        # The score that is told is that of the blend as it was written.
        told = re.search(r"host ([\d.]+)", out_of_fold_line(done))
        assert told is not None
        assert float(told[1]) == pytest.approx(fit["score_alone" if is_alone else "score_of_equal"], abs=1e-4)
        assert f"; {'a alone' if is_alone else 'equal weights'} kept\n" in done.stdout
    assert sorted(kept) == [[0.5, 0.5], [1, 0]]


@pytest.mark.parametrize("best", ["found", "equal", "alone"])
def test_of_weights_found_equal_ones_and_a_run_alone_the_best_are_kept(
    best: str, runs: Path, command: Command, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not facts_of(task).is_fitted:
        return
    silence(runs / "b" / "fold0" / OOF)
    silence(runs / "a" / "fold1" / OOF)

    def score(images: OutOfFold, _: object, weights: Weights) -> tuple[str, float]:
        kind = "found" if weights.by_fold else "alone" if 1 in weights.shares else "equal"
        metric = images.config.metrics[0]
        return metric, float((kind == best) is (images.merit((metric, 1.0)) > images.merit((metric, 0.0))))

    monkeypatch.setattr(blend_weights, "_first_score", score)
    done = command("submit", "a", "b", "--weights", "fit", "--name", "x")
    assert done.returncode == 0, done.stderr
    about = yaml.safe_load((runs / "x/blend.yaml").read_text())
    assert about["fit"]["is_kept"] is (best == "found")
    first = "ab"[about["fit"]["weights"].index(max(about["fit"]["weights"]))]
    alone = [float(name == first) for name in "ab"]
    assert about["weights"] == {"found": about["fit"]["weights"], "equal": [0.5, 0.5], "alone": alone}[best]
    said = {"found": "those found", "equal": "equal weights", "alone": f"{first} alone"}[best]
    assert f"; {said} kept\n" in done.stdout
    assert ("found on the others" in out_of_fold_line(done)) is (best == "found")


def silence(path: Path) -> None:
    """Store predictions again as zeros."""
    stored = Predictions(path)
    with PredictionWriter(path.parent) as writer:
        for image_id, size, prediction in stored:
            writer.add(image_id, *size, {key: np.zeros_like(values) for key, values in prediction.items()})
        writer.finish(path, stored.classes)


def test_a_blend_of_changed_predictions_starts_anew_but_for_the_submission_it_is_compared_with(
    runs: Path, command: Command
) -> None:
    command("submit", "a", "b", "--name", "x")
    (runs / "x/cv.csv").touch()
    (runs / "x/postprocess.yaml").write_text("{}\n")
    done = command("submit", "a", "b", "--name", "x", "metrics=[]")
    assert "metrics: found []" in done.stderr
    assert "rows that differ" in command("submit", "a", "b", "--name", "x").stdout
    assert (runs / "x/cv.csv").is_file()  # it was tuned on these very predictions
    shutil.copy(runs / "a" / TEST, runs / "b" / TEST)
    assert "the submission before" in command("submit", "a", "b", "--name", "x").stdout
    assert not (runs / "x/cv.csv").exists()
    assert not (runs / "x/postprocess.yaml").exists()


def test_a_blend_warns_of_a_run_that_was_predicted_anew_since_but_not_of_one_that_is_gone(
    runs: Path, command: Command
) -> None:
    command("submit", "a", "b", "--name", "x")
    shutil.copy(runs / "a" / TEST, runs / "b" / TEST)
    shutil.rmtree(runs / "a")
    done = command("submit", "x")
    assert done.returncode == 0, done.stderr
    advice = "blend anew with `competition submit outputs/a outputs/b --name x`\n"
    assert f"warning: outputs/b/test.npz: is not the file that outputs/x was blended of; {advice}" in done.stdout
    shutil.rmtree(runs / "b")
    assert "warning: " not in command("submit", "x").stdout


def test_a_blend_is_not_scored_by_thresholds_that_a_run_found_on_the_same_images(
    runs: Path, command: Command, task: str, other_decode: dict[str, Any]
) -> None:
    before = out_of_fold_line(command("submit", "a", "b", "--name", "x", *facts_of(task).decides))
    thresholds = yaml.safe_dump({"decode": other_decode})
    (runs / "a" / POSTPROCESS).write_text(thresholds)
    done = command("submit", "a", "b", "--name", "x", *facts_of(task).decides)
    assert (runs / "x" / POSTPROCESS).read_text() == thresholds  # which decode what is handed in
    handed_in = ", not by those handed in, which were found on the same images)"
    assert out_of_fold_line(done) == before.removesuffix(")") + handed_in
    assert "thresholds are those of the first run; `competition tune x` finds the blend's own\n" in done.stdout
    tuned = Run.open("x", list(facts_of(task).decides))
    by_others = score_predictions(tuned.config, Task(task).table.read_table(tuned.config), tuned.out_of_fold_files())
    assert f"by the thresholds handed in:  {describe_scores(by_others)}  (found on the same images" in done.stdout
    assert before.endswith("(by the config's own thresholds)")


def test_a_tuned_blend_shows_its_cross_fitted_score(
    runs: Path, command: Command, task: str, other_decode: dict[str, Any]
) -> None:
    assert command("submit", "a", "b", "--name", "x", *facts_of(task).decides).returncode == 0
    assert command("tune", "x", *facts_of(task).decides).returncode == 0
    (runs / "x" / POSTPROCESS).write_text(yaml.safe_dump({"decode": other_decode}))
    cv = runs / "x" / CV
    cv.write_text(cv.read_text().replace(OWN, CROSSED))  # as if it had paid
    note, made = cv.with_name(f".{CV}.sources"), cv.stat()
    earlier = {"made": [made.st_size, made.st_mtime_ns], "also": ""}  # by a version that did not note what it found
    note.write_text(json.dumps(json.loads(note.read_text()) | earlier))
    rows = {row["images"]: row for row in read_rows(cv, "delete it", texts=("images", THRESHOLDS))}
    metric = Run.open("x").config.metrics[0]
    shown = out_of_fold_line(command("submit", "x", *facts_of(task).decides))
    assert f"{metric} {float(rows['pooled'][f'{metric}_cross_fitted']):.4f}" in shown
    assert shown.endswith("(cross-fitted)")


def test_a_tuned_blend_that_is_made_again_stays_tuned(
    runs: Path, command: Command, task: str, other_decode: dict[str, Any]
) -> None:
    words = ["a", "b", "--name", "x", "--weights", "2,1", *facts_of(task).decides]
    assert command("submit", *words).returncode == 0
    assert command("tune", "x", *facts_of(task).decides).returncode == 0
    (runs / "x" / POSTPROCESS).write_text(yaml.safe_dump({"decode": other_decode}))
    expected = out_of_fold_line(command("submit", "x", *facts_of(task).decides))
    done = command("submit", *words)
    assert out_of_fold_line(done) == expected
    assert "rows that differ from the submission before: 0 of " in done.stdout
    assert is_tuned(Run.open("x"))


def test_a_blend_that_is_submitted_by_thresholds_given_by_hand_shows_their_score(
    runs: Path, command: Command, task: str, other_decode: dict[str, Any]
) -> None:
    decided = facts_of(task).decides
    assert command("submit", "a", "b", "--name", "x", *decided).returncode == 0
    assert command("tune", "x", *decided).returncode == 0
    tuned = {**other_decode, **facts_of(task).more_decode}
    (runs / "x" / POSTPROCESS).write_text(yaml.safe_dump({"decode": tuned}))
    by_hand = [f"decode.{key}={(np.asarray(value) / 2).tolist()}" for key, value in tuned.items()]
    run = Run.open("x", [*decided, *by_hand])
    scores = score_predictions(run.config, Task(task).table.read_table(run.config), run.out_of_fold_files())
    shown = out_of_fold_line(command("submit", "x", *decided, *by_hand))
    assert shown == f"out of fold:  {describe_scores(scores)}  (by thresholds given by hand)"
    shown = out_of_fold_line(command("submit", "x", *decided, by_hand[0]))
    assert shown.endswith("(by thresholds given by hand beside some found on the same images: flatters)")


def out_of_fold_line(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("out of fold:  "))


def test_overrides_hold_for_a_blend_and_are_not_kept(runs: Path, command: Command) -> None:
    opened = open_runs(["a", "b"], ["tta=[hflip]"], name="x", weights=None, mean="mean")
    assert opened.config.tta == ["hflip"]
    assert Run.open("x").config.tta == []


OPTIONS = {
    "--weights 1,2,3": "--weights 1,2,3: expected 2 numbers of 0 or more, one a run, or fit",
    "--weights 1,-1": "--weights 1,-1: expected 2 numbers of 0 or more",
    "--weights much": "--weights much: expected a number for each run",
    "--mean median": "--mean median: expected mean or rank",
    "--name x/y": "--name x/y: it names a folder: expected letters",
    "--name b": "--name b: is one of the runs that are blended",
}


def test_options_that_do_not_fit_are_refused(runs: Path, command: Command) -> None:
    for words, message in OPTIONS.items():
        done = command("submit", "a", "b", *words.split())
        assert done.returncode == 1
        assert done.stderr.startswith(message)
    assert sorted(path.name for path in runs.iterdir()) == ["a", "b"]


def rewrite(
    path: Path, ids: Sequence[str] | None = None, classes: Sequence[str] | None = None, views: Sequence[str] = ()
) -> None:
    """Store predictions again under other image ids, classes or views."""
    stored = Predictions(path)
    with PredictionWriter(path.parent) as writer:
        for index, (image_id, size, prediction) in enumerate(stored):
            writer.add(ids[index] if ids else image_id, *size, prediction)
        writer.finish(path, classes or stored.classes, views)


def test_views_that_differ_are_those_of_a_run_and_not_of_its_blend(runs: Path, command: Command) -> None:
    command("submit", "a", "b", "--name", "x")
    rewrite(runs / "x" / TEST, views=["hflip"])  # as where a fold's weights are 1 and 0
    assert "in the views" not in command("submit", "x").stdout
    rewrite(runs / "b" / TEST, views=["hflip"])
    advice = "outputs/b/fold0/oof.npz in plain; make both anew with `competition predict b`\n"
    for words in (["b"], ["x"]):
        said = command("submit", *words).stdout.replace(" in precision 32", "")
        assert f"warning: outputs/b/test.npz was predicted in the views plain, hflip, {advice}" in said


def test_runs_of_other_classes_or_images_are_refused(runs: Path, command: Command) -> None:
    stored = Predictions(runs / "b" / TEST)
    rewrite(runs / "b" / TEST, classes=stored.classes[::-1])
    assert "runs that are blended need the same classes" in command("submit", "a", "b").stderr
    rewrite(runs / "b" / TEST, ids=stored.image_ids[::-1], classes=stored.classes)
    assert "need the same folds.csv and sample_submission.csv" in command("submit", "a", "b").stderr
    (runs / "b" / TEST).unlink()
    assert "make it with `competition predict b`" in command("submit", "a", "b").stderr


def test_ranks_are_averaged_where_predictions_are_class_probabilities(runs: Path, command: Command, task: str) -> None:
    done = command("submit", "a", "b", "--mean", "rank", "--name", "x")
    if task != "classification":
        assert "--mean rank is for the probabilities of classes" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    ranks = np.stack([np.stack([p["probabilities"] for _, _, p in Predictions(runs / r / TEST)]) for r in "ab"])
    expected = (ranks.argsort(axis=1).argsort(axis=1) + 1).mean(axis=0) / 6
    found = np.stack([prediction["probabilities"] for _, _, prediction in Predictions(runs / "x" / TEST)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    decided = "format.submission.value=decision"
    for words in (["a", "b", "--mean", "rank", "--name", "x"], ["x"]):
        assert "find its own with `competition tune x`" in command("submit", *words, decided).stderr
    assert command("tune", "x", decided).returncode == 0
    assert "find its own" not in command("submit", "x", decided).stderr


def test_weights_of_ranks_that_thresholds_do_not_fit_are_not_compared_with_equal_ones(
    runs: Path, command: Command, task: str
) -> None:
    if task != "classification":
        return
    decided = "format.submission.value=decision"
    command("submit", "a", "b", "--mean", "rank", "--weights", "fit", "--name", "x", decided)
    assert "fit" not in yaml.safe_load((runs / "x/blend.yaml").read_text())
    assert command("tune", "x", decided).returncode == 0
    assert "warning: whether equal weights do better than those found" in command("submit", "x", decided).stdout


def test_out_of_fold_files_are_joined_by_image_id(runs: Path, tmp_path: Path) -> None:
    path, config = runs / "a" / TEST, Run.open("a").config
    stored = Predictions(path)
    with PredictionWriter(tmp_path) as writer:
        for index in reversed(range(len(stored))):
            writer.add(stored.image_ids[index], *stored.sizes[index], stored[index])
        writer.finish(tmp_path / "reversed.npz", stored.classes)
    average_predictions([stored, Predictions(tmp_path / "reversed.npz")], tmp_path / "x.npz", config)
    assert_average(tmp_path / "x.npz", [path, path])


# -- what is said beside a submission


def test_shares_that_differ_more_than_by_chance_are_told(config: Config) -> None:
    def presence(number: int, with_class: int) -> Presence:
        counted = Presence(config, ["a", "b"])
        counted.number, counted.counts = number, np.array([with_class, 0, number - with_class])
        return counted

    assert share_warnings(presence(1000, 300), presence(1000, 310)) == []
    assert share_warnings(presence(10, 1), presence(10, 4)) == []
    assert share_warnings(presence(100000, 50000), presence(1000000, 510000)) == []
    told = share_warnings(presence(1000, 100), presence(1000, 400))
    assert told == [
        "warning: class a is said of 10.0% of the test images, of 40.0% of the out-of-fold images",
        "warning: nothing is said of 90.0% of the test images, of 60.0% of the out-of-fold images",
    ]


@pytest.mark.slow
def test_pseudo_labels_are_trained_on_and_never_validated(
    runs: Path, command: Command, task: str, words: list[str]
) -> None:
    done = command("pseudo", "a", "--confidence", "0")
    assert done.returncode == 0, done.stderr
    assert "outputs/a/pseudo.csv: 6 of 6 test images" in done.stdout
    refused = command("pseudo", "a", "--confidence", "1").stderr
    assert refused.startswith("--confidence 1: no test image is as sure")
    assert "of 6 images there are " in refused
    assert command("folds", *words).returncode == 0
    done = command("train", *words, "name=p", "data.pseudo=outputs/a/pseudo.csv", "trainer.limit_train_batches=2")
    assert done.returncode == 0, done.stderr
    assert "fold 0: 18 training images, 12 validation images" in done.stdout
    assert not any(image_id.startswith("test") for image_id in Predictions(Path("outputs/p/fold0") / OOF).image_ids)


def test_pseudo_labels_say_what_the_run_predicted(runs: Path, command: Command, task: str) -> None:
    """Read as training rows, they are what was decoded; images known from train.csv keep their own answer."""
    run = Run.open("a")
    path, words = make_pseudo(run, Choice(0), {}, begin_pseudo(run))
    assert f"an image's confidence is {Task(task).pseudo_labels.confidence_name(run.config)})" in words
    assert "warning: networks that have seen a fold's validation images" in words
    table = Task(task).table.read_table(run.config)
    own = own_config(run.config, table.classes)
    pseudo = Task(task).table.read_table(own, path)
    counts_one = np.ones(len(pseudo.image_ids))
    joined = JoinedTable(table, [Extra("pseudo.csv", own, pseudo, counts_one, num_classes=len(table.classes))])
    assert len(joined.image_ids) == 30
    assert joined.present().shape == (30, len(table.classes))
    stored = Predictions(run.folder / TEST)
    for index, (image_id, size, prediction) in enumerate(stored):
        expected = _as_target(Task(task).decode.decode(prediction, *size, own), prediction)
        assert joined.image_ids[24 + index] == image_id
        assert joined.extra(24 + index) is not None
        found = joined.target(24 + index, *size)
        assert found.keys() & expected.keys()
        for key in found.keys() & expected.keys():
            np.testing.assert_allclose(found[key], expected[key], atol=0.02)
    known = Extra("train.csv", run.config, table, np.ones(24), num_classes=len(table.classes))
    assert len(JoinedTable(table, [known]).image_ids) == 24


def test_a_quota_takes_the_surest_of_each_class() -> None:
    sure = np.array([0.9, 0.5, 0.8, 0.7, 0.6])
    present = np.array([[1, 0], [0, 1], [1, 0], [1, 1], [0, 0]], dtype=bool)
    assert within_quota(sure, present, 1).tolist() == [True, False, False, True, False]
    assert within_quota(sure, present, 2).tolist() == [True, True, True, True, False]


def test_pseudo_labels_of_a_fold_are_by_its_own_networks(predicted: Path, command: Command, tmp_path: Path) -> None:
    """The networks of the folds differ: each file says what its own fold's network does, and none of the others'."""
    shutil.copytree(predicted, tmp_path / "outputs")
    assert command("pseudo", "t", "--confidence", "0", "--quota", "3").returncode == 0
    done = command("pseudo", "t", "--confidence", "0")
    assert done.returncode == 0, done.stderr
    assert "each fold learns from what its own networks say" in done.stdout
    run = Run.open("t")
    files = sorted(path.name for path in run.folder.glob("pseudo*.csv"))
    assert files == ["pseudo.csv", "pseudo_fold0.csv", "pseudo_fold1.csv"]
    task = Task(run.config.task)
    texts = {name: (run.folder / name).read_text() for name in files}
    assert len(set(texts.values())) == 3
    for fold in (0, 1):
        stored = Predictions(run.folder / f"fold{fold}" / TEST)
        network, classes = load_network(run.folder / f"fold{fold}" / "best_loss.pt")
        ids = task.submission.read_test_ids(run.config, classes)
        alone = tmp_path / "alone.npz"
        predict_images(run.config, [network], ImageDataset(run.config, ids), alone, classes)
        for (_, _, found), (_, _, expected) in zip(stored, Predictions(alone), strict=True):
            assert task.decode.difference(found, expected) < 1e-5


def _as_target(answer: Target, prediction: Prediction) -> Target:
    """Return the answer as a target: of classes the probabilities, which stand in pseudo.csv with five digits."""
    if "probabilities" not in prediction or prediction["probabilities"].ndim > 1:
        return answer
    return {"label": int(prediction["probabilities"].argmax()), "soft": prediction["probabilities"], **answer}


def test_pseudo_masks_are_decoded_at_the_size_that_is_handed_in(runs: Path, command: Command, task: str) -> None:
    """Thresholds in pixels are for masks of `format.size`: here no mask has as many as `min_area` asks for."""
    if task != "segmentation":
        pytest.skip("other answers have no size")
    words = ["format.size=[32, 32]", "decode={threshold: 0.0, min_area: 1025}"]
    run = Run.open("a", words)
    path, _ = make_pseudo(run, Choice(0), {}, begin_pseudo(run))
    assert all(",," in line for line in path.read_text().splitlines()[1:])
    run = Run.open("a", [*words, "decode.min_area=1000"])
    path, _ = make_pseudo(run, Choice(0), {}, begin_pseudo(run))
    table = Task(task).table.read_table(own_config(run.config, Predictions(run.folder / TEST).classes), path)
    assert table.target(0, *Predictions(run.folder / TEST).sizes[0])["mask"].all()


def test_pseudo_labels_that_count_for_training_images_are_told(runs: Path, command: Command, task: str) -> None:
    run = Run.open("a")
    first = str(Task(task).table.read_table(run.config).image_ids[0])
    stored = Predictions(runs / "a" / TEST)
    with PredictionWriter(runs / "a") as writer:
        for number, (image_id, size, prediction) in enumerate(stored):
            writer.add(image_id if number else first, *size, dict(prediction))
        writer.finish(runs / "a" / TEST, stored.classes, stored.views, stored.precision)
    _, words = make_pseudo(run, Choice(0), {}, begin_pseudo(run))
    assert words.endswith(f"; warning: 1 have the id of a training image, as {first!r}: nothing is learnt from those")

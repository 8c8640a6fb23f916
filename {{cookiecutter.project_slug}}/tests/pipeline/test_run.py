"""`competition run` from a csv file to a score, as a user starts it: what it writes, skips, refuses and reports."""

import csv
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
from tiny import PROJECT
from trainings import run_here
from warm import warm_python

from competition.config.loading import task_names
from competition.runs.ledger import read_ledger
from competition.support.freshness import sha256
from competition.support.optional_rooms import has_room
from competition.tasks.made_up_images import write_sample

Command = Callable[..., CompletedProcess[str]]
Score = Callable[[pd.DataFrame, pd.DataFrame], float]

pytestmark = pytest.mark.slow

WORDS = (
    "name=tiny",
    "model.encoder=test_resnet",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "optimizer.lr=1e-2",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
)


def run_in_processes(folder: Path, words: list[object]) -> CompletedProcess[str]:
    """Run `competition run ...` in a process of its own, which starts others, as a user's does."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [warm_python(), "-m", "competition", "run", *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


class Finished:
    """A folder in which `competition run` has been once, on data that lie elsewhere."""

    def __init__(self, folder: Path, task: str, words: list[object]) -> None:
        self.folder, self.words = folder, words
        self.in_processes = task == task_names()[0]
        run = run_in_processes if self.in_processes else partial(run_here, whole=True)
        self.first = run(folder, [*words, "--parallel", 2])

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"


@pytest.fixture(scope="module")
def data(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the sample to where a run may add its folds.csv."""
    return Path(shutil.copytree(sample, tmp_path_factory.mktemp("elsewhere") / "images and csv"))


@pytest.fixture(scope="module")
def finished(task: str, config_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    words = [config_file, *WORDS, f"data.dir={data}"]
    return Finished(tmp_path_factory.mktemp("run"), task, words)


def files(folder: Path) -> dict[str, int]:
    """Return every file below a folder with the time it was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def reported(stdout: str, where: str) -> tuple[str, float]:
    """Return name and value of the first score of a line of the report."""
    found = re.search(rf"^{where}: +(\w+) (-?[\d.]+)", stdout, re.MULTILINE)
    assert found, stdout
    return found[1], float(found[2])


# -- scores, computed from the two csv files by other means than the project's


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def macro_f1(solution: pd.DataFrame, submission: pd.DataFrame) -> float:
    probabilities = submission.set_index("image_id").astype(float)
    found = probabilities.idxmax(axis=1)
    true = solution.set_index("image_id")["label"].reindex(found.index)
    scores = []
    for name in set(true) | set(found):
        hits = int(((true == name) & (found == name)).sum())
        scores.append(2 * hits / int((true == name).sum() + (found == name).sum()))
    return float(np.mean(scores))


def pixels(rle: str) -> set[int]:
    numbers = list(map(int, rle.split()))
    return {
        pixel
        for first, length in zip(numbers[::2], numbers[1::2], strict=True)
        for pixel in range(first, first + length)
    }


MASKS = ("image_id", "class_id", "rle")


def dice(solution: pd.DataFrame, submission: pd.DataFrame) -> float:
    true: dict[tuple[str, str], set[int]] = defaultdict(set)
    for image_id, class_id, rle in zip(*(solution[column] for column in MASKS), strict=True):
        true[image_id, class_id] |= pixels(rle)
    scores = []
    for image_id, class_id, rle in zip(*(submission[column] for column in MASKS), strict=True):
        one, other = pixels(rle), true[image_id, class_id]
        scores.append(2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0)
    return float(np.mean(scores))


def overlap(one: list[float], other: list[float]) -> float:
    """Return intersection over union of two boxes x, y, w, h."""
    sides = [min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def average_precision(true: dict[str, list[list[float]]], found: list[tuple[float, str, list[float]]]) -> float:
    """Return the area under precision by recall at IoU .5, at COCO's 101 recalls."""
    free = {image: list(boxes) for image, boxes in true.items()}
    total, hits, course = sum(map(len, true.values())), 0, []
    for number, (_, image, box) in enumerate(sorted(found, key=lambda one: -one[0]), start=1):
        best = max(free.get(image, []), key=lambda other: overlap(box, other), default=None)
        if best is not None and overlap(box, best) >= 0.5:
            free[image].remove(best)
            hits += 1
        course.append((hits / total, hits / number))
    levels = np.linspace(0, 1, 101)
    return float(np.mean([max((p for r, p in course if r >= level - 1e-9), default=0.0) for level in levels]))


def map50(solution: pd.DataFrame, submission: pd.DataFrame) -> float:
    found = defaultdict(list)
    for image, text in zip(submission["image_id"], submission["PredictionString"], strict=True):
        words = text.split()
        for at in range(0, len(words), 6):
            found[words[at]].append((float(words[at + 1]), image, [float(word) for word in words[at + 2 : at + 6]]))
    boxes = solution[solution["class_id"] != ""]
    scores = []
    for name, rows in boxes.groupby("class_id"):
        true = defaultdict(list)
        for image, *box in zip(*(rows[column] for column in ("image_id", "x", "y", "w", "h")), strict=True):
            true[image].append([float(value) for value in box])
        scores.append(average_precision(true, found[str(name)]))
    return float(np.mean(scores))


SCORES: dict[str, Score] = {"macro_f1": macro_f1, "dice": dice, "map50": map50}


# -- a run


def test_a_run_ends_well_and_writes_exactly_these_files(finished: Finished) -> None:
    assert finished.first.returncode == 0, finished.first.stderr
    fold = {
        "config.yaml",
        "latest.pt",
        "best_loss.pt",
        "best_loss.safetensors",
        "metrics.csv",
        "metrics.png",
        "oof.npz",
        ".tables",
        "..tables.sources",
    }
    fold |= {"train.log"} if finished.in_processes else set()  # of two that go on at the same time
    folds = {f"tiny/fold{number}/{name}" for number in (0, 1) for name in fold}
    whole = {"tiny/cv.csv", "tiny/postprocess.yaml", "tiny/test.npz", "tiny/submission.csv"}
    whole |= {"runs.csv", "tiny/.cv.csv.sources", "tiny/.test.npz.sources"}
    if has_room("pages"):
        whole |= {"tiny/check.html", "tiny/report.html", "tiny/suspects.csv", "tiny/.report.html.sources"}
    found = {name for name in files(finished.outputs) if not name.endswith(".lock")}  # some filelocks delete them
    bundled = {name for name in found if name.startswith(("tiny/bundle/", "tiny/.bundle."))}
    assert found - bundled == whole | folds
    expected = {f"tiny/{name}" for name in ("bundle/infer.py", "bundle/manifest.json", ".bundle.sources")}
    assert expected & bundled == (expected if has_room("bundle") else set())
    assert {path.name for path in finished.folder.iterdir()} == {"outputs"}


def test_the_submission_has_the_columns_and_ids_of_the_sample(finished: Finished, data: Path) -> None:
    found, expected = read(finished.outputs / "tiny/submission.csv"), read(data / "sample_submission.csv")
    assert list(found.columns) == list(expected.columns)
    keys = [column for column in expected.columns if column in ("image_id", "class_id")]
    assert found[keys].equals(expected[keys])


def test_the_score_in_the_report_is_that_of_the_submission(finished: Finished, data: Path) -> None:
    name, value = reported(finished.first.stdout, "test images")
    if name not in SCORES:
        pytest.skip(f"no second implementation of {name} here")
    solution, submission = read(data / "solution.csv"), read(finished.outputs / "tiny/submission.csv")
    assert value == pytest.approx(SCORES[name](solution, submission), abs=1e-3)


def test_every_validation_image_is_predicted_out_of_fold_once(finished: Finished, data: Path) -> None:
    with (data / "folds.csv").open(newline="") as file:
        folds = {row["image_id"]: int(row["fold"]) for row in csv.DictReader(file)}
    for fold in (0, 1):
        with np.load(finished.outputs / f"tiny/fold{fold}/oof.npz") as stored:
            ids = stored["image_ids"].tolist()
        assert sorted(ids) == sorted(image_id for image_id, number in folds.items() if number == fold)


def test_the_ledger_has_a_line_of_what_the_run_measured(finished: Finished, data: Path) -> None:
    line = read_ledger(finished.outputs / "runs.csv")["tiny"]
    epochs = [read(finished.outputs / f"tiny/fold{fold}/metrics.csv") for fold in (0, 1)]
    assert float(line.seconds) == pytest.approx(sum(rows["seconds"].astype(float).sum() for rows in epochs), abs=0.5)
    assert float(line.memory_mb) == max(rows["memory_mb"].astype(float).max() for rows in epochs)
    assert line.device.startswith("1 x CPU (")
    assert set(line.fold_scores) == {"0", "1"}
    assert line.submission == sha256(finished.outputs / "tiny/submission.csv")
    assert "torch " in line.versions
    assert line.data
    assert line.folds_csv


@pytest.fixture
def run_again(finished: Finished, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that starts the same run once more, with further words and without the cost of a process."""
    monkeypatch.chdir(finished.folder)
    return lambda *more: command("run", *finished.words, *more)


def test_a_second_run_skips_everything_and_reports_the_same(finished: Finished, run_again: Command) -> None:
    before = files(finished.outputs)
    submission = (finished.outputs / "tiny/submission.csv").read_bytes()
    second = run_again("data.num_workers=1")  # where it computes may change, and how fast
    assert second.returncode == 0, second.stderr
    after = files(finished.outputs)
    written = {name for name in after if after[name] != before.get(name)}
    # Decoding may be set anew without another prediction, and the data may have changed.
    assert written <= {"tiny/submission.csv", "tiny/check.html", ".runs.csv.lock"}
    assert (finished.outputs / "tiny/submission.csv").read_bytes() == submission
    assert second.stdout.count("is done already") == 2
    for where in ("out of fold", "test images"):
        assert reported(second.stdout, where) == reported(finished.first.stdout, where)


def test_another_config_under_the_same_name_is_refused(finished: Finished, run_again: Command) -> None:
    before = files(finished.outputs)
    done = run_again("data.batch_size=2")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "was trained with another config (data.batch_size: 4 -> 2); give this one another name" in done.stderr
    after = files(finished.outputs)
    assert {name for name in after if after[name] != before.get(name)} <= {"tiny/check.html"}  # is of the data


@pytest.fixture
def copied(finished: Finished, data: Path, tmp_path: Path) -> tuple[Path, str]:
    """Copy run and data for a test that changes them; return the data's folder and the word that names it."""
    shutil.copytree(finished.outputs, tmp_path / "outputs")
    shutil.copytree(data, tmp_path / "moved")
    return tmp_path / "moved", f"data.dir={tmp_path / 'moved'}"


def test_a_sample_submission_that_changed_is_refused_and_the_submission_kept(
    copied: tuple[Path, str], command: Command, tmp_path: Path
) -> None:
    folder, word = copied
    before = (tmp_path / "outputs/tiny/submission.csv").read_bytes()
    sample = folder / "sample_submission.csv"
    sample.write_text(sample.read_text().replace("test_000001", "test_999999"))
    done = command("submit", "tiny", word)
    assert done.returncode == 1
    assert "that are not those of" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "outputs/tiny/submission.csv").read_bytes() == before


def test_without_the_hidden_answer_a_submission_is_made_without_score(
    copied: tuple[Path, str], command: Command
) -> None:
    folder, word = copied
    (folder / "solution.csv").unlink()
    done = command("submit", "tiny", word)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "submission:  outputs/tiny/submission.csv  (6 images, checked)"
    assert "test images" not in done.stdout


def test_training_what_is_trained_is_refused(finished: Finished, copied: tuple[Path, str], command: Command) -> None:
    done = command("train", *finished.words)
    assert done.returncode == 1
    assert done.stderr == (
        "outputs/tiny/fold0: is trained already; delete the folder, or give this run another name=...\n"
    )


def test_training_names_a_broken_image_with_its_line(project: Path, command: Command, tmp_path: Path) -> None:
    """Images are read by workers, whose tracebacks would bury the message. The same for every task."""
    task = task_names()[0]
    write_sample(task, tmp_path / "data", size=24)
    words = [project / f"configs/{task}.yaml", *WORDS, "sampler.share=natural", "data.num_workers=2"]
    assert command("folds", *words).returncode == 0
    folds = (tmp_path / "data/folds.csv").read_text().splitlines()[1:]
    broken = next(row.partition(",")[0] for row in folds if row.endswith(",1"))
    path = Path("data/train_images") / broken
    (tmp_path / path).write_bytes((tmp_path / path).read_bytes()[:500])
    rows = (tmp_path / "data/train.csv").read_text().splitlines()
    number = next(number for number, row in enumerate(rows, start=1) if row.startswith(broken))
    done = command("train", *words, "fold=0")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path}: truncated or no image (500 bytes")
    assert done.stderr.endswith(f"(train.csv line {number})\n")
    assert len(done.stderr.splitlines()) == 1

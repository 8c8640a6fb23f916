"""What does not belong together is refused: folds that know each other's images, seeds, views and sizes of others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from tiny import tiny_words
from trainings import call

from competition.config.loading import load_config
from competition.files.csv_file import read_csv
from competition.prediction.averages import Seeds
from competition.prediction.stored import Predictions, PredictionWriter, open_alike
from competition.runs.folder import Run
from competition.runs.provenance import test_images_fingerprint as fingerprint_of_tests
from competition.scoring.out_of_fold import OutOfFold
from competition.scoring.tune import is_tuned, tune
from competition.submission.blend import refuse_unlike
from competition.support.errors import CompetitionError
from competition.support.freshness import is_up_to_date
from competition.tasks.contract import Task

Command = Callable[..., CompletedProcess[str]]


def copied(path: Path, to: Path, order: slice = slice(None), scale: int = 1, classes: tuple[str, ...] = ()) -> Path:
    """Write a file's predictions anew, in another order, of images of other sizes or of other classes."""
    stored = Predictions(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    with PredictionWriter(to.parent) as writer:
        for image_id, (height, width), prediction in list(stored)[order]:
            writer.add(image_id, height * scale, width * scale, prediction)
        writer.finish(to, classes or stored.classes, stored.views, stored.precision)
    return to


def test_an_image_in_two_folds_is_refused_with_both(runs: Path, tmp_path: Path) -> None:
    run = Run.open("t")
    files = run.out_of_fold_files()
    table = Task(run.config.task).table.read_table(run.config)
    copied(files[0], files[1])  # as if folds.csv had been made anew between the trainings
    with pytest.raises(CompetitionError, match=r"fold1.oof.npz: image '.*' stands in .*fold0.oof.npz, too"):
        OutOfFold(run.config, table, [[path] for path in files])


def test_seeds_are_averaged_image_by_image_or_not_at_all(runs: Path, tmp_path: Path) -> None:
    run = Run.open("t")
    first = run.out_of_fold_files()[0]
    other = copied(first, tmp_path / "other" / "oof.npz", slice(None, None, -1))
    with pytest.raises(CompetitionError, match="holds other images than"):
        Seeds([first, other], run.config)
    classes = tuple(f"{name}?" for name in Predictions(first).classes)
    with pytest.raises(CompetitionError, match="has classes"):
        open_alike([first, copied(first, tmp_path / "renamed" / "oof.npz", classes=classes)])


def test_places_in_images_of_another_size_are_not_blended(runs: Path, tmp_path: Path) -> None:
    first = Run.open("t").out_of_fold_files()[0]
    files = [Predictions(path) for path in (first, copied(first, tmp_path / "large" / "oof.npz", scale=2))]
    if "boxes" not in files[0][0]:
        refuse_unlike(files, same_order=False)  # of the image, or maps that are scaled to it
        return
    with pytest.raises(CompetitionError, match=r"saw image .* pixels"):
        refuse_unlike(files, same_order=False)


def test_runs_without_a_fold_in_common_are_not_blended(runs: Path, command: Command) -> None:
    for name, fold in (("t", 1), ("u", 0)):
        shutil.rmtree(runs / name / f"fold{fold}")
    done = command("submit", "t", "u", "--name", "both")
    assert done.returncode == 1
    assert "(t has fold0; u has fold1)" in done.stderr
    assert not (runs / "both").exists()


def test_tuning_for_another_first_metric_is_not_up_to_date(runs: Path, config_file: Path) -> None:
    known = list(load_config([config_file]).metrics)
    if len(known) < 2:
        pytest.skip("this task has one metric by itself")
    one, other = (Run.open("t", [f"metrics=[{', '.join(names)}]"]) for names in (known, known[::-1]))
    tune(one)
    assert is_tuned(one)
    assert not is_tuned(other)


def test_a_prediction_of_images_read_otherwise_is_refused(runs: Path, command: Command) -> None:
    done = command("predict", "t", "data.image_size=96")
    assert done.returncode == 1
    assert done.stderr.startswith("data.image_size: ")
    assert "have learnt images as its config has them read" in done.stderr


def test_predictions_of_other_test_images_are_not_up_to_date(runs: Path, tmp_path: Path) -> None:
    run = Run.open("t")
    path, data = run.folder / "test.npz", tmp_path / "data"
    assert is_up_to_date(path, run.test_sources(), fingerprint_of_tests(run.config))
    assert not is_up_to_date(
        path, run.test_sources(), fingerprint_of_tests(Run.open("t", ["data.test_images=train_images"]).config)
    )
    shutil.copytree(run.config.data.dir, data)
    moved = Run.open("t", [f"data.dir={data}"])
    assert fingerprint_of_tests(moved.config) == fingerprint_of_tests(run.config)
    image = next((data / run.config.data.test_images).iterdir())
    image.write_bytes(image.read_bytes() + b" ")
    assert not is_up_to_date(path, run.test_sources(), fingerprint_of_tests(moved.config))


@pytest.fixture
def begun(config_file: Path, data_dir: Path, command: Command) -> list[str]:
    """Train a fold for an epoch; return the words."""
    words = [str(config_file), *tiny_words(config_file.stem), "data.image_size=32", "name=n", f"data.dir={data_dir}"]
    for verb in (["folds", *words], ["train", *words, "fold=0"]):
        assert call(*verb) == 0
    return words


def turn_round(path: Path) -> None:
    """Write the rows of a table in another order."""
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[::-1]]) + "\n")


def test_another_fold_is_not_trained_on_images_read_otherwise(begun: list[str], command: Command) -> None:
    done = command("train", *begun, "fold=1", "data.image_size=64")
    assert done.returncode == 1
    assert "reads images otherwise (data.image_size: " in done.stderr
    assert not Path("outputs/n/fold1/latest.pt").exists()


@pytest.mark.parametrize("name", ["folds.csv", "train.csv"])
def test_a_training_does_not_go_on_by_other_tables(
    name: str, begun: list[str], data_dir: Path, command: Command
) -> None:
    more = ["train", *begun, "fold=0", "trainer.max_epochs=2", "--resume"]
    path = data_dir / name
    kept = shutil.copy(path, path.with_suffix(".kept"))
    turn_round(path)
    done = command(*more)
    assert done.returncode == 1
    assert f"{name}: is another than when outputs/n/fold0 was begun" in done.stderr
    shutil.move(kept, path)
    assert call(*more) == 0


def test_a_training_that_never_was_holds_nobody(begun: list[str], data_dir: Path, command: Command) -> None:
    folder, path = Path("outputs/n/fold0"), data_dir / "folds.csv"
    for name in ("oof.npz", "latest.pt"):  # as one leaves that ended in its first epoch
        (folder / name).unlink()
    turn_round(path)
    assert command("train", *begun, "fold=0").returncode == 0


def test_a_note_of_tables_holds_in_a_copied_folder(begun: list[str], data_dir: Path, command: Command) -> None:
    shutil.copytree("outputs", "kept", copy_function=shutil.copy)  # with other times
    shutil.rmtree("outputs")
    shutil.move("kept", "outputs")
    path = data_dir / "folds.csv"
    turn_round(path)
    done = command("train", *begun, "fold=0", "trainer.max_epochs=2", "--resume")
    assert done.returncode == 1
    assert "folds.csv: is another than when" in done.stderr


def test_a_column_that_differs_within_an_image_is_not_handed_in_as_it_stands(
    data_dir: Path, config_file: Path, command: Command
) -> None:
    config = load_config([config_file], [f"data.dir={data_dir}"])
    task = Task(config.task)
    sample = config.sample_submission
    header = sample.read_text().splitlines()[0].split(",")
    frame = read_csv(sample, header)
    frame["kind"] = "a"
    frame.to_csv(sample, index=False)
    done = command("check", config_file, f"data.dir={data_dir}")
    if done.returncode:
        assert "column 'kind'" in done.stderr
        return  # this task has no such columns, or keeps them by name
    train = read_csv(config.train_csv, config.train_csv.read_text().splitlines()[0].split(","))
    train["kind"] = np.resize(["a", "b", "c"], len(train))
    keys = task.submission.id_columns(config)
    if not set(keys) <= set(train) or not train.groupby(keys).size().max() > 1:
        pytest.skip("an image is one row here")
    train.to_csv(config.train_csv, index=False)
    done = command("check", config_file, f"data.dir={data_dir}")
    assert done.returncode == 1
    assert "column kind differs within an image (" in done.stderr

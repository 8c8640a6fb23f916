"""A run's line in the ledger through its stages, and how two runs are told apart in it."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from tiny import PROJECT

from competition.comparison.compare import why_not_comparable
from competition.comparison.update_ledger import IN_TRAINING, begin, record, record_missing, take_public_scores
from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.runs.folder import CONFIG, CV, LATEST, OOF, POSTPROCESS, SUBMISSION, Run
from competition.runs.ledger import BY_HAND, EDITED, Line, change_ledger, ledger_path, read_ledger
from competition.runs.provenance import base_names, data_fingerprint, git_state, provenance
from competition.runs.public_scores import PublicScore, remember_scores, scores_path
from competition.runs.thresholds import describe_edit, thresholds_in_words
from competition.scoring.out_of_fold import lower_is_better
from competition.scoring.tune import tune
from competition.support.freshness import sha256

Command = Callable[..., CompletedProcess[str]]

one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all


@pytest.fixture
def outputs(replayable: Path, command: Command, tmp_path: Path) -> Path:
    """Copy the run into the working folder."""
    return Path(shutil.copytree(replayable, tmp_path / "outputs"))


def line_of(run: str) -> Line:
    return read_ledger(ledger_path())[run]


def copy_run(outputs: Path, name: str, **changes: object) -> Config:
    """Copy the run t under another name, with keys of its config changed; return its config."""
    shutil.copytree(outputs / "t", outputs / name, dirs_exist_ok=True)
    words = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    for path in outputs.glob(f"{name}/fold*/{CONFIG}"):
        config = load_config([path], [f"name={name}", *words])
        path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return Run.open(name).untuned


def trained(outputs: Path, config: Config, bases: tuple[str, ...] = ()) -> None:
    """Note a training of a run as `train` does: its folder holds none that has begun, then it is done."""
    folder = outputs / config.name
    folder.rename(outputs / "aside")
    begin(config, bases, "1 x CPU")
    (outputs / "aside").rename(folder)
    record(config.name)


def threshold_by_hand(config: Config) -> str:
    """Return a word of a command line that sets a threshold of `decode`."""
    key, value = next((key, value) for key, value in config.decode if "score" in key or "threshold" in key)
    values = value if isinstance(value, list) else [value]
    return f"decode.{key}={[0.1 + one / 2 for one in values]}"


def write_metrics(folder: Path, metric: str, *epochs: tuple[float, float]) -> None:
    """Write metrics.csv of epochs of a loss and a score each, ten seconds long."""
    rows = [f"{number},10.0,{100 + number},{loss},{score}" for number, (loss, score) in enumerate(epochs, start=1)]
    (folder / "metrics.csv").write_text("\n".join([f"epoch,seconds,memory_mb,val/loss,val/{metric}", *rows, ""]))


@pytest.mark.slow
def test_a_line_follows_its_run_through_the_stages(outputs: Path, command: Command) -> None:
    config = Run.open("t").config
    metric = config.metrics[0]
    trained(outputs, config)
    begun = line_of("t")
    assert (begun.device, begun.folds, begun.seeds, begun.metric, begun.scores) == ("1 x CPU", "0 1", "0", metric, "")
    assert {name: getattr(begun, name) for name in ("data", "folds_csv", "versions")}.items() <= provenance(
        config
    ).items()
    write_metrics(outputs / "t/fold0", metric, (0.5, 0.25), (0.3, 0.5), (0.4, 0.75))
    write_metrics(outputs / "t/fold1", metric, (0.4, 0.75), (0.5, 1))
    record("t")
    line = line_of("t")
    assert (line.thresholds, line.scores) == (IN_TRAINING, "0=0.500000 1=0.750000")  # of the epochs of lowest loss
    assert (line.mean, line.std) == ("0.625000", "0.176777")
    assert (line.seconds, line.memory_mb) == ("50", "103")
    assert command("tune", "t").returncode == 0
    line = line_of("t")
    with (outputs / "t" / CV).open(newline="") as file:
        rows = {row["images"]: row for row in csv.DictReader(file)}
    way = "_cross_fitted" if line.thresholds == "cross-fitted" else ""
    assert line.scores == " ".join(f"{fold}={rows[f'fold{fold}'][metric + way]}" for fold in (0, 1))
    assert (line.mean, line.std) == (rows["mean"][metric + way], rows["std"][metric + way])
    pooled = (line.untuned, line.tuned, line.cross_fitted)
    assert pooled == tuple(rows["pooled"][f"{metric}{ending}"] for ending in ("", "_tuned", "_cross_fitted"))
    assert line.better == ("lower" if lower_is_better(config, metric) else "higher")
    for verb in ("predict", "submit"):
        done = command(verb, "t")
        assert done.returncode == 0, done.stderr
    assert line_of("t") == replace(line, submission=sha256(outputs / "t" / SUBMISSION))
    shutil.rmtree(outputs / "t")
    assert command("runs").stdout.count("t (deleted)") == 1


@one_task
def test_a_public_score_is_that_of_the_submission_there_is(outputs: Path, command: Command) -> None:
    file = outputs / "t" / SUBMISSION
    file.write_text("first\n")
    record("t")
    sent = PublicScore(1, sha256=sha256(file), public_score="0.81")
    take_public_scores(remember_scores(scores_path(), [sent, PublicScore(2, sha256="other", public_score="0.9")]))
    assert line_of("t").public_score == "0.81"
    file.write_text("second\n")
    record("t")
    assert line_of("t").public_score == ""
    assert command("runs", "outputs/t", "--public", "0.83").returncode == 0
    record("t")
    assert line_of("t").public_score == "0.83"
    file.write_text("first\n")
    record("t")
    assert line_of("t").public_score == "0.81"
    assert command("runs", "t", "--public", "nan").stderr == "--public nan: expected a number, as 0.81\n"
    assert command("runs", "x", "--public", "1").stderr == "outputs/runs.csv: has no run 'x'; runs there: t\n"


@one_task
def test_a_submission_by_thresholds_given_by_hand_has_no_score(outputs: Path) -> None:
    tune(Run.open("t"))
    (outputs / "t" / SUBMISSION).write_text("first\n")
    record("t", [])
    own = line_of("t")
    assert own.mean
    record("t", [threshold_by_hand(Run.open("t").config)])
    by_hand = line_of("t")
    assert by_hand == replace(own, thresholds=BY_HAND, scores="", mean="", std="")
    record("t")  # by another verb: the submission is still that
    assert line_of("t") == by_hand
    assert "t is handed in by thresholds given by hand" in str(why_not_comparable(own, by_hand))
    record("t", [])
    assert line_of("t") == own


@one_task
def test_thresholds_edited_by_hand_and_other_code_have_no_score(
    task: str,
    outputs: Path,
    command: Command,
    other_decode: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = shutil.copytree(PROJECT / "competition" / "tasks", tmp_path / "competition" / "tasks")
    for module in ("scoring.code_files", "support.freshness"):
        monkeypatch.setattr(f"competition.{module}.PACKAGE", tasks.parent)
    path, values = outputs / "t" / POSTPROCESS, {"decode": other_decode}
    tune(Run.open("t"))
    record("t", [])
    own, found = line_of("t"), path.read_text()
    edited = replace(own, thresholds=EDITED, scores="", mean="", std="")
    path.write_text(yaml.safe_dump(values))
    shown = command("runs").stdout  # none has been handed in by them yet
    assert line_of("t") == edited
    assert own.mean[:6] not in shown
    assert "t is handed in by thresholds given by hand" in command("runs", "t", "t").stdout
    path.write_text(found)
    tune(Run.open("t"))
    record("t")
    assert line_of("t") == own
    code = tasks / task / "score.py"
    before = code.read_text()
    code.write_text(f"{before}# edited\n")
    assert own.mean[:6] not in command("runs").stdout
    code.write_text(before)
    assert own.mean[:6] in command("runs").stdout


@one_task
def test_a_line_is_scored_again_once_thresholds_are_put_back(outputs: Path, other_decode: dict[str, Any]) -> None:
    path, submission = outputs / "t" / POSTPROCESS, outputs / "t" / SUBMISSION
    submission.write_text("first\n")  # by those that tuning found
    tune(Run.open("t"))
    path.write_text(yaml.safe_dump({"decode": other_decode}))
    tune_as_it_stands(path)
    record("t", [])
    own, found = record_missing()["t"], path.read_text()
    unscored = replace(own, thresholds=EDITED, scores="", mean="", std="")
    for change in (lambda: path.write_text(yaml.safe_dump({"decode": {}})), path.unlink):
        change()
        assert record_missing()["t"] == unscored
        record("t")
        assert record_missing()["t"] == unscored
        path.write_text(found)
        assert record_missing()["t"] == own
    path.unlink()
    (line,) = describe_edit(Run.open("t"))
    assert line.startswith(
        "outputs/t/postprocess.yaml: is gone, which tuning wrote; the config's own thresholds decode"
    )
    submission.write_text("second\n")
    record("t", [])  # by the config's own
    path.write_text(found)
    assert record_missing()["t"] == replace(unscored, thresholds=BY_HAND, submission=sha256(submission))
    submission.unlink()
    assert record_missing()["t"].thresholds == own.thresholds


def tune_as_it_stands(path: Path) -> None:
    """Note thresholds as what tuning found."""
    note = path.with_name(f".{CV}.sources")
    wrote = thresholds_in_words(yaml.safe_load(path.read_text())["decode"])
    note.write_text(json.dumps(json.loads(note.read_text()) | {"also": wrote}))


@one_task
def test_two_runs_are_told_apart_by_their_parent_and_difference(
    outputs: Path, command: Command, config_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    shutil.copy(config_file, tmp_path / "configs")
    trained(outputs, Run.open("t").untuned)
    assert line_of("t").parent == ""
    assert "model.encoder: " in line_of("t").difference  # from the shipped config
    trained(outputs, copy_run(outputs, "u", optimizer__lr=0.5, fold=1))
    assert (line_of("u").parent, line_of("u").difference) == ("t", "optimizer.lr: 0.001 -> 0.5")
    trained(outputs, copy_run(outputs, "v", seed=7, data__num_workers=3), bases=("missing", "t"))
    assert (line_of("v").parent, line_of("v").difference) == ("t", "seed: 0 -> 7")
    copy_run(outputs, "v", seed=7, tta="[hflip]")  # what becomes of predictions may be set anew
    record("v")
    assert line_of("v").difference == "tta: [] -> ['hflip']; seed: 0 -> 7"
    shown = command("runs", "u", "v").stdout
    assert "optimizer.lr: 0.5 -> 0.001" in shown
    assert "not comparable: u has no score by fold yet" in shown


def test_a_config_file_is_compared_with_its_own_run_then_with_those_it_inherits_from(tmp_path: Path) -> None:
    texts = {"a": "task: x\n", "b": "base: a.yaml\nname: bee\n", "sub/c": "base: ../b.yaml\n"}
    (tmp_path / "sub").mkdir()
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert base_names(tmp_path / "sub" / "c.yaml") == ["c", "bee", "a"]


@one_task
def test_a_run_that_was_deleted_and_trained_again_has_a_line_of_its_own(outputs: Path) -> None:
    config = Run.open("t").untuned
    trained(outputs, config)
    change_ledger(ledger_path(), lambda lines: lines.update(t=replace(lines["t"], mean="0.5")))
    (outputs / "t/fold0" / OOF).unlink()
    (outputs / "t/fold1" / LATEST).touch()
    begin(config, (), "2 x CUDA")  # another training of the same run
    assert line_of("t").device == "1 x CPU; 2 x CUDA"
    shutil.rmtree(outputs / "t")
    begin(config, (), "1 x CPU")
    lines = read_ledger(ledger_path())
    assert list(lines) == ["t~1", "t"]
    assert (lines["t~1"].mean, lines["t"].mean, lines["t"].device) == ("0.5", "", "1 x CPU")


@one_task
def test_seeds_and_a_training_on_all_images_are_of_one_run(outputs: Path) -> None:
    metric = Run.open("t").config.metrics[0]
    for name, words in {"fold0_seed1": ["seed=1"], "foldall": ["fold=all"]}.items():
        shutil.copytree(outputs / "t/fold0", outputs / "t" / name)
        path = outputs / "t" / name / CONFIG
        path.write_text(yaml.safe_dump(load_config([path], words).model_dump(mode="json"), sort_keys=False))
    (outputs / "t/foldall" / OOF).rename(outputs / "t/foldall/latest.safetensors")
    for name, score in {"fold0": 0.25, "fold0_seed1": 0.75, "fold1": 0.5}.items():
        write_metrics(outputs / "t" / name, metric, (0.5, score))
    record("t")
    line = line_of("t")
    assert (line.folds, line.seeds, line.scores) == ("0 1 all", "0 1", "0=0.500000 1=0.500000")


@one_task
def test_a_fold_of_which_only_a_later_seed_is_done_is_still_that_fold(outputs: Path) -> None:
    (outputs / "t/fold0").rename(outputs / "t/fold0_seed1")
    tune(Run.open("t"))
    record("t")
    assert list(line_of("t").fold_scores) == ["0", "1"]


@pytest.mark.slow
@one_task
def test_a_blend_is_made_of_what_its_sources_are(outputs: Path, command: Command) -> None:
    assert command("predict", "t").returncode == 0
    trained(outputs, copy_run(outputs, "u"))
    done = command("submit", "t", "u", "--weights", "3,1", "--name", "both")
    assert done.returncode == 0, done.stderr
    line = line_of("both")
    assert (line.parent, line.difference, line.seeds) == ("t + u", "mean of t 0.75, u 0.25", "")
    assert (line.data, line.folds_csv) == (line_of("u").data, line_of("u").folds_csv)
    assert command("tune", "both").returncode == 0
    assert line_of("both").mean


@one_task
def test_a_ledger_that_cannot_be_read_stops_no_training(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger_path().write_text("mine\n")
    begin(Run.open("t").config, (), "1 x CPU")
    record("t")
    assert capfd.readouterr().err.count("warning: outputs/runs.csv was not brought up to date: ") == 2
    assert ledger_path().read_text() == "mine\n"


@one_task
def test_the_fingerprint_of_data_knows_rows_names_and_sizes(data_dir: Path, config_file: Path) -> None:
    config = load_config([config_file], [f"data.dir={data_dir}"])
    found = [data_fingerprint(config)]
    image = next((data_dir / "train_images").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    found.append(data_fingerprint(config))
    image.rename(image.with_name("other.png"))
    found.append(data_fingerprint(config))
    config.train_csv.write_text(config.train_csv.read_text() + "\n")
    found.append(data_fingerprint(config))
    assert len(set(found)) == 4
    assert data_fingerprint(config) == found[-1]


def test_code_that_is_not_committed_is_told(tmp_path: Path) -> None:
    assert git_state(tmp_path) == ("", "")
    (tmp_path / "code.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    commit, dirty = git_state(tmp_path)
    assert (len(commit), dirty) == (12, "no")
    (tmp_path / "code.py").write_text("1\n")
    assert git_state(tmp_path) == (commit, "yes")

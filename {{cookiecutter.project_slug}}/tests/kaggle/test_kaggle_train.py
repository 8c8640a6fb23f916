"""`competition push --train` and `fetch` with the real kaggle package: a training on Kaggle that is stopped, goes on
and comes home. The notebook is run as a script, in folders as Kaggle makes them."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from kaggle_stand_in import KEY, Session, StandIn
from tiny import TINY
from trainings import assert_ended_like
from warm import warm_python

from competition.config.loading import dump_config, load_config, task_names
from competition.kaggle import session
from competition.kaggle.training import push_training
from competition.runs.ledger import read_ledger
from competition.support import paths as places
from competition.support.errors import CompetitionError
from competition.support.on_kaggle import T4
from competition.support.paths import ADDRESS
from competition.tasks.made_up_images import write_sample

Command = Callable[..., CompletedProcess[str]]
TASK = task_names()[0]
CONFIG = f"configs/{TASK}.yaml"
# The preset of 2 x T4 on a machine without any.
ON_CPU = (*TINY, "trainer.devices=1", "trainer.strategy=auto", "trainer.precision=32-true")


@pytest.fixture
def repo(kaggle: StandIn, project: Path, tmp_path: Path) -> Path:
    """Make a repo's folder, without data."""
    shutil.copytree(project / "configs", tmp_path / "configs")
    return tmp_path


def name_packages(repo: Path, project: Path) -> None:
    """Let a repo need the packages that the project does, so that what Kaggle lacks is told."""
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    text, found = re.subn(r"(?m)^Competition = .*", f'Competition = "{ADDRESS}digits"', text)
    assert found == 1
    (repo / "pyproject.toml").write_text(text, encoding="utf-8")


def train_there(kaggle: StandIn, name: str, root: Path, data: Path) -> str:
    """Do as Kaggle with a notebook that was pushed: mount its inputs, run it, keep its output; return what it said."""
    pushed = next(one for one in kaggle.notebooks if one["slug"] == name)
    (root / "working").mkdir(parents=True)
    for competition in pushed.get("competitionDataSources", []):
        shutil.copytree(data, root / "input" / "competitions" / competition)
    for source in pushed.get("kernelDataSources", []):
        for file, content in kaggle.sessions[source].files.items():
            path = root / "input" / "notebooks" / source / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)
    script = root / "script.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in json.loads(pushed["text"])["cells"]))
    environment = os.environ | {"COMPETITION_KAGGLE": str(root), places.NOTEBOOK: "Batch"}
    # -P: only what was pushed may be imported.
    done = subprocess.run(
        [warm_python(), "-P", str(script)],
        cwd=root / "working",
        env={name: value for name, value in environment.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    files = [path for path in (root / "working").rglob("*") if path.is_file()]
    names = {path.relative_to(root / "working").as_posix(): path for path in files}
    kept = {name: path.read_bytes() for name, path in names.items() if not name.startswith(".") and "/." not in name}
    log = [{"stream_name": "stdout", "time": 0, "data": line} for line in done.stdout.splitlines()]
    kaggle.sessions[name] = Session(["COMPLETE" if done.returncode == 0 else "ERROR"], kept, log)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_training_stopped_there_goes_on_and_comes_home_as_an_unbroken_one(
    kaggle: StandIn, repo: Path, kaggle_command: Command, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    name_packages(repo, project)
    write_sample(TASK, elsewhere / "data", size=24)
    words = (CONFIG, *ON_CPU, "trainer.max_epochs=2", "fold=[0]")
    fold, series = repo / "outputs" / TASK / "fold0", f"ada-l/digits-{TASK}-train"

    assert kaggle_command("push", "--train", *words, "trainer.max_time=00:00:00:00").returncode == 0
    said = train_there(kaggle, f"{series}-1", elsewhere / "first", elsewhere / "data")
    assert f"{TASK}: its time was over" in said, said
    done = kaggle_command("fetch", TASK)
    assert done.returncode == 0, done.stderr
    assert "its time was over; push it again, and it goes on: competition push --train" in done.stdout
    assert (fold / "latest.pt").is_file()
    assert not (fold / "oof.npz").exists()
    assert not (repo / "data").exists()

    again = kaggle_command("push", "--train", *words)
    assert f"goes on from {series}-1" in again.stdout, again.stderr
    said = train_there(kaggle, f"{series}-2", elsewhere / "second", elsewhere / "data")
    assert f"{TASK}: it is finished" in said, said
    kaggle.breaks = 1
    broken = kaggle_command("fetch", TASK)
    assert (broken.returncode, len(broken.stderr.splitlines())) == (1, 1)
    assert not (fold / "oof.npz").exists()
    done = kaggle_command("fetch", TASK)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (repo / "outputs").iterdir()} - {".runs.csv.lock"} == {TASK, "runs.csv"}
    line = read_ledger(repo / "outputs" / "runs.csv")[TASK]
    assert line.submission
    assert line.mean
    assert line.device

    # Here, now with data, all is up to date; and it is what an unbroken training makes.
    shutil.copytree(elsewhere / "data", repo / "data")
    shutil.copyfile(repo / "outputs" / TASK / "folds.csv", repo / "data" / "folds.csv")
    preset = "configs/trainer/kaggle_t4x2.yaml"
    assert kaggle_command("train", words[0], preset, *words[1:], "fold=0", "folds=[0]", "name=whole").returncode == 0
    assert_ended_like(fold, repo / "outputs" / "whole" / "fold0")


def archive_of(notebook: dict[str, Any]) -> tarfile.TarFile:
    """Return what a notebook brings along."""
    source = "".join(json.loads(notebook["text"])["cells"][0]["source"])
    return tarfile.open(fileobj=io.BytesIO(base64.b64decode(source.partition('"')[2].rstrip('"'))))


def test_code_travels_and_neither_data_nor_results_nor_secrets(
    kaggle: StandIn, repo: Path, kaggle_command: Command
) -> None:
    for name in ("data/folds.csv", "data/train.csv", "outputs/t/fold0/latest.pt", ".env", ".git/config", "mine/m.py"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text("image_id,fold\na,0\n")
    (repo / "mine" / "steps.py").touch()
    (repo / "mine" / "big.yaml").write_text(
        f"base: ../{CONFIG}\nhost_metric: mine/m.py\ntrainer: {{max_epochs: 3}}\n"
        "data: {augmentation: {more: [{mine/steps.py:Stain: {p: 0.5}}]}}\n"
    )
    done = kaggle_command("push", "--train", "mine/big.yaml", "data.dir=/mnt/of-mine", "data.folds=data/folds.csv")
    assert done.returncode == 0, done.stderr
    [notebook] = kaggle.notebooks
    assert (notebook["machineShape"], notebook["enableGpu"], notebook["isPrivate"]) == (T4, True, True)
    assert (notebook["enableInternet"], notebook["competitionDataSources"]) == (True, ["digits"])
    names = set(archive_of(notebook).getnames())
    assert {"pyproject.toml", CONFIG, "mine/big.yaml", "mine/m.py", "data/folds.csv", "job.json"} <= names
    assert {"competition/cli/app.py", "configs/trainer/kaggle_t4x2.yaml"} <= names
    assert not any(name.startswith("competition/bundle/") for name in names)
    package = {path.suffix for path in places.PACKAGE.rglob("[!.]*") if path.is_file()} - {".pyc"}
    assert {Path(name).suffix for name in names if name.startswith("competition/")} == package
    others = {name for name in names if not name.startswith(("competition/", "configs/"))}
    mine = {"mine/big.yaml", "mine/m.py", "mine/steps.py"}
    assert others == {"pyproject.toml", *mine, "data/folds.csv", "job.json"}
    job = json.load(archive_of(notebook).extractfile("job.json"))  # ty: ignore[invalid-argument-type]
    assert (job["run"], job["data_dir"], job["former"]) == ("big", "/mnt/of-mine", None)
    assert job["words"][:2] == ["mine/big.yaml", "configs/trainer/kaggle_t4x2.yaml"]


def test_another_accelerator_has_the_preset_of_one_gpu_and_the_time_limit(
    kaggle: StandIn, repo: Path, kaggle_command: Command
) -> None:
    done = kaggle_command("push", "--train", CONFIG, "--accelerator", "NvidiaL4", "--dataset", "ada-l/weights")
    assert done.returncode == 1  # the stand-in has no such data set
    assert "it lacks its sources ada-l/weights" in done.stderr
    [notebook] = kaggle.notebooks
    assert (notebook["machineShape"], notebook["datasetDataSources"]) == ("NvidiaL4", ["ada-l/weights"])
    job = json.load(archive_of(notebook).extractfile("job.json"))  # ty: ignore[invalid-argument-type]
    assert job["words"] == [CONFIG, "configs/trainer/gpu.yaml", "trainer.max_time=00:08:30:00"]


def test_folds_of_a_second_table_travel_there_and_back(
    kaggle: StandIn, repo: Path, kaggle_command: Command, left: Callable[..., Session], tmp_path: Path
) -> None:
    for name in ("train.csv", "folds.csv", "folds_second.csv"):
        (repo / "data").mkdir(exist_ok=True)
        (repo / "data" / name).write_text(f"image_id,fold\n{name},0\n")
    assert kaggle_command("push", "--train", CONFIG, "data.train_csv=second.csv", "name=t").returncode == 0
    folds = {name for name in archive_of(kaggle.notebooks[0]).getnames() if name.startswith("folds")}
    assert folds == {"folds_second.csv"}
    assert left(2, folds="folds_second.csv").files["folds_second.csv"]
    assert kaggle_command("fetch", "t").returncode == 0
    assert (repo / "outputs" / "t" / "folds_second.csv").is_file()
    session_before = tmp_path / "kaggle" / "input" / "t-train-1"
    (session_before / "outputs").mkdir(parents=True)
    shutil.copy(repo / "outputs" / "t" / "folds_second.csv", session_before)
    (tmp_path / "working").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "KAGGLE", tmp_path / "kaggle")
        session.take_up("ada-l/t-train-1", tmp_path / "working")
    assert (tmp_path / "working" / "folds_second.csv").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model.encoder=no_such_network", "trainer.max_epoch=3"), "trainer.max_epoch"),
        (("data.pseudo=/etc/hostname",), "data.pseudo: /etc/hostname: lies outside of this folder"),
        (("data.pseudo=large.csv",), "large.csv: 1.5 MB, too large to travel in a notebook"),
        (("data.pseudo=secret.csv",), "secret.csv: holds credentials"),
        (
            ("data.maps={run: first, classes: [a]}", "data.extra=[{csv: more.csv, maps: second}]"),
            "data.extra[0].maps: outputs/second/maps: its pictures cannot travel in a notebook",
        ),
    ],
)
def test_what_could_only_fail_there_is_refused_here(
    kaggle: StandIn, repo: Path, kaggle_command: Command, words: tuple[str, ...], told: str
) -> None:
    (repo / "large.csv").write_bytes(os.urandom(1_500_000))
    (repo / "outputs" / "second" / "maps").mkdir(parents=True)
    (repo / "outputs" / "second" / "maps" / "maps.csv").touch()
    (repo / "secret.csv").write_text(KEY if "secret" in words[0] else "")
    done = kaggle_command("push", "--train", CONFIG, *words) if "secret" not in words[0] else None
    if done is None:
        with pytest.raises(CompetitionError, match=told):
            push_training([Path(CONFIG)], list(words))
    else:
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert told in done.stderr
    assert kaggle.notebooks == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--train", CONFIG, "-m", "longer"), "--message: is of a bundle's version"),
        (("run1", "--follow"), "push run1: expected one run; --follow, --dataset and --competition are of --train"),
        (("run1", "--competition", "digits"), "push run1: expected one run; --follow, --dataset and"),
    ],
)
def test_what_one_kind_of_push_does_not_know_is_refused(
    kaggle: StandIn, kaggle_command: Command, words: tuple[str, ...], told: str
) -> None:
    done = kaggle_command("push", *words)
    assert (done.returncode, kaggle.calls) == (1, [])
    assert done.stderr.startswith(told)


def test_a_session_that_has_not_ended_is_waited_for(kaggle: StandIn, repo: Path, kaggle_command: Command) -> None:
    assert kaggle_command("push", "--train", CONFIG).returncode == 0
    for verb in (("push", "--train", CONFIG), ("fetch", TASK)):
        done = kaggle_command(*verb)
        assert (done.returncode, len(kaggle.notebooks)) == (1, 1)
        assert f"ada-l/digits-{TASK}-train-1 is queued" in done.stderr


def test_a_log_is_followed_to_its_end_and_the_weeks_hours_are_told(
    kaggle: StandIn, repo: Path, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.quota = {"quotaRefreshTime": "2026-12-05T00:00:00Z"}
    kaggle.quota["gpuQuota"] = {"timeUsed": "43200s", "totalTimeAllowed": "108000s"}
    log = [{"stream_name": "stdout", "time": number, "data": f"epoch {number}"} for number in range(3)]
    begun = Session(["QUEUED", "RUNNING", "RUNNING", "COMPLETE"], {}, log)
    kaggle.begins = lambda: begun
    monkeypatch.setattr("competition.kaggle.api.POLL", 0.01)
    done = kaggle_command("push", "--train", CONFIG, "--follow")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    from kaggle.api.kaggle_api_extended import KaggleApi  # which looks for a key as it is imported

    if hasattr(KaggleApi, "quota_view"):  # 2.0 of Kaggle's own image has none
        assert lines[0] == "GPU hours of this week: 12.0 of 30 used, anew on 2026-12-05"
    assert lines[-4:] == ["epoch 0", "epoch 1", "epoch 2", f"ada-l/digits-{TASK}-train-1: complete"]


def put_training(folder: Path, epochs: int, *words: str) -> Path:
    """Write what a training that has not ended leaves, without training."""
    folder.mkdir(parents=True)
    config = load_config([Path(CONFIG)], [*words, "name=" + folder.parent.name])
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "latest.pt").write_bytes(f"after {epochs} epochs".encode())
    (folder / "metrics.csv").write_text("epoch\n" + "".join(f"{epoch}\n" for epoch in range(epochs)))
    return folder


@pytest.fixture
def left(kaggle: StandIn, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Session]:
    """Return a function that lets Kaggle have a session of a run `t` that has trained so many epochs."""

    def leave(epochs: int, *words: str, listed: bool = True, folds: str = "folds.csv") -> Session:
        working = tmp_path_factory.mktemp("working")
        fold = put_training(working / "outputs" / "t" / "fold0", epochs, *words)
        (fold.parent / ".cv.csv.sources").write_text("made of")
        (working / folds).write_text("image_id,fold\na,0\n")
        if listed:
            session.write_listing(working, session.Job("t", [CONFIG], "/mnt/of-mine"), 3)
        paths = [path for path in working.rglob("*") if path.is_file() and not path.name.startswith(".")]
        files = {path.relative_to(working).as_posix(): path.read_bytes() for path in paths}
        kaggle.sessions["ada-l/digits-t-train-1"] = Session(["COMPLETE"], files)
        return kaggle.sessions["ada-l/digits-t-train-1"]

    return leave


def test_what_came_is_as_it_was_there_but_for_the_datas_folder(
    left: Callable[..., Session], repo: Path, kaggle_command: Command
) -> None:
    left(2)
    assert kaggle_command("fetch", "t").returncode == 0
    run = repo / "outputs" / "t"
    assert (run / "fold0" / "latest.pt").read_text() == "after 2 epochs"
    assert (run / ".cv.csv.sources").read_text() == "made of"
    assert yaml.safe_load((run / "fold0" / "config.yaml").read_text())["data"]["dir"] == "/mnt/of-mine"


def test_a_session_that_kaggle_ended_is_fetched_as_far_as_it_came(
    left: Callable[..., Session], repo: Path, kaggle_command: Command
) -> None:
    left(2, listed=False)
    done = kaggle_command("fetch", "t")
    assert done.returncode == 0, done.stderr
    assert "outputs/t/fold0: 2 epochs of its training" in done.stdout
    assert "Kaggle ended it before it had stopped by itself" in done.stdout


def test_a_session_that_failed_before_its_training_leaves_what_it_had_written(
    kaggle: StandIn, repo: Path, kaggle_command: Command
) -> None:
    files = {"outputs/t/check.html": b"faults", "folds.csv": b"image_id,fold\na,0\n"}
    kaggle.sessions["ada-l/digits-t-train-1"] = Session(["COMPLETE"], files)
    done = kaggle_command("fetch", "t")
    assert done.returncode == 0, done.stderr
    assert "outputs/t: no training had begun" in done.stdout
    assert (repo / "outputs" / "t" / "check.html").read_bytes() == b"faults"


def test_what_is_further_here_stays(left: Callable[..., Session], repo: Path, kaggle_command: Command) -> None:
    left(2)
    put_training(repo / "outputs" / "t" / "fold0", 3, "data.dir=/mnt/of-mine")
    done = kaggle_command("fetch", "t")
    assert "outputs/t/fold0: is further here than on Kaggle, and stays" in done.stdout, done.stderr
    assert (repo / "outputs" / "t" / "fold0" / "latest.pt").read_text() == "after 3 epochs"
    left(4)
    assert "outputs/t/fold0: 4 epochs" in kaggle_command("fetch", "t").stdout
    assert (repo / "outputs" / "t" / "fold0" / "latest.pt").read_text() == "after 4 epochs"


def test_another_configs_training_of_the_same_name_is_left_alone(
    left: Callable[..., Session], repo: Path, kaggle_command: Command
) -> None:
    left(2, "optimizer.lr=0.5")
    put_training(repo / "outputs" / "t" / "fold0", 1, "data.dir=/mnt/of-mine")
    done = kaggle_command("fetch", "t")
    assert done.returncode == 1
    assert "this folder was trained with another config (optimizer.lr" in done.stderr
    assert (repo / "outputs" / "t" / "fold0" / "latest.pt").read_text() == "after 1 epochs"


def test_a_file_that_came_damaged_is_refused_and_one_that_broke_off_is_fetched_again(
    left: Callable[..., Session], kaggle: StandIn, repo: Path, kaggle_command: Command
) -> None:
    files = left(2).files
    whole = files["outputs/t/fold0/latest.pt"]
    files["outputs/t/fold0/latest.pt"] = b"after X epochs"
    done = kaggle_command("fetch", "t")
    assert done.returncode == 1
    assert "outputs/t/fold0/latest.pt of ada-l/digits-t-train-1 is not as it was written there" in done.stderr
    files["outputs/t/fold0/latest.pt"], kaggle.breaks = whole, 1
    assert kaggle_command("fetch", "t").returncode == 1
    assert not (repo / "outputs" / "t").exists()
    assert kaggle_command("fetch", "t").returncode == 0
    assert (repo / "outputs" / "t" / "fold0" / "latest.pt").read_bytes() == whole


def test_only_what_the_image_lacks_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    needs = ["numpy>=2.0", "numpy>=99", "no-such-package-here>=1", "nor-this; python_version < '3'"]
    path.write_text(f"[project]\ndependencies = {json.dumps(needs)}\n")
    assert list(session.what_lacks(path)) == ["numpy>=99", "no-such-package-here>=1"]


def test_a_notebook_that_misses_its_former_output_does_not_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "KAGGLE", tmp_path)
    with pytest.raises(SystemExit, match="the output of ada-l/x-train-1, from which this goes on, is not there"):
        session.take_up("ada-l/x-train-1", tmp_path / "working")

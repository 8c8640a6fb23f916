"""Download, submit, scores and push through the real kaggle package, against a stand-in of the service.

The one thing that is changed in the package is the address of the service.
"""

import io
import json
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from kaggle_stand_in import KEY, SIGNATURE, TOKEN, USER, StandIn, serve

from competition import places
from competition.config import load_config, task_names
from competition.errors import CompetitionError
from competition.kaggle_api import KaggleService
from competition.public_scores import read_scores, score_of_file, scores_path
from competition.send import send

Command = Callable[..., CompletedProcess[str]]
ENDPOINT_VARIABLES = ("KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT", "KAGGLE_CONFIG_DIR", "KAGGLE_PROXY")


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Start the stand-in, point the package at it and sign in as a user of it; no test ever sees the real service."""
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")
    home = tmp_path / "home"
    home.mkdir()
    for name in ENDPOINT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(home), "KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY, "no_proxy": "*"}.items():
        monkeypatch.setenv(name, value)
    state = StandIn()
    _, stop = serve(state)
    for environment in kaggle_env.KaggleEnv:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, environment, state.address)
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(f'[project.urls]\nCompetition = "{places.ADDRESS}digits"\n')
    yield state
    stop()


@pytest.fixture
def command(command: Command, tmp_path: Path) -> Command:
    """Run a command, then look for the credentials in what it printed and in every file that it left."""

    def run(*arguments: object) -> CompletedProcess[str]:
        done = command(*arguments)
        left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        for secret in (KEY, TOKEN, SIGNATURE):
            assert secret not in done.stdout + done.stderr
            assert secret.encode() not in left
        return done

    return run


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def zipped_folder(folder: Path) -> bytes:
    files = (path for path in folder.rglob("*") if path.is_file())
    return zipped({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- download


def test_a_download_is_unpacked_and_passes_the_check(
    kaggle: StandIn, command: Command, sample: Path, config_file: Path
) -> None:
    kaggle.archives["digits"] = zipped_folder(sample)
    done = command("download", config_file)
    assert done.returncode == 0, done.stderr
    assert contents(Path("data")) == contents(sample)
    assert done.stdout.startswith(f"data: {len(contents(sample))} files of digits")
    assert done.stdout.splitlines()[-1] == f"next: competition check {config_file}"
    checked = command(*done.stdout.splitlines()[-1].split()[2:])
    assert checked.returncode == 0, checked.stderr


def test_what_the_config_expects_and_is_not_there_is_named(
    kaggle: StandIn, command: Command, config_file: Path
) -> None:
    kaggle.archives["digits"] = zipped({"labels.csv": b"a", "train_images/1.png": b"b"})
    done = command("download", config_file)
    assert done.returncode == 0
    assert (
        "not there: data.train_csv (train.csv), data.sample_submission (sample_submission.csv), data.test_images "
        "(test_images); set these keys to the names of: labels.csv, train_images/"
    ) in done.stdout


def test_a_download_that_breaks_off_goes_on(kaggle: StandIn, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.archives["other"] = zipped({"train.csv": random.Random(0).randbytes(8 << 20)})
    kaggle.breaks = 6  # the package tries five times more
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = command("download", "--competition", "other")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("Kaggle cannot be reached (")
    kaggle.ranges.clear()
    done = command("download", "--competition", "other")
    assert done.returncode == 0, done.stderr
    assert [int(asked.strip("bytes=-")) > 1 << 20 for asked in kaggle.ranges] == [True]
    assert contents(Path("data")) == {"train.csv": random.Random(0).randbytes(8 << 20)}


def test_a_folder_with_something_in_it_is_left_alone(kaggle: StandIn, command: Command) -> None:
    Path("data").mkdir()
    Path("data/train.csv").write_text("made up")
    done = command("download")
    assert done.returncode == 1
    assert done.stderr.startswith("data: is not empty; move it away, or name another folder")
    assert contents(Path("data")) == {"train.csv": b"made up"}
    assert kaggle.calls == []


# -- submit and scores


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    file = tmp_path / "outputs" / "run1" / "submission.csv"
    file.parent.mkdir(parents=True)
    file.write_text("image_id,label\n1,0\n")
    return file


def test_a_submission_is_sent_and_its_score_comes_back_to_its_file(
    kaggle: StandIn, command: Command, submission: Path
) -> None:
    assert send(submission, "run1", "first try") == (
        "sent to digits as submission 1000; its score comes with `competition scores`"
    )
    assert list(kaggle.uploads.values()) == [submission.read_bytes()]
    assert score_of_file(read_scores(scores_path()), submission) is None
    # Another one, sent by hand on the web, before the first has its score.
    kaggle.submissions.insert(0, kaggle.submissions[0] | {"ref": 7, "date": "2026-11-24T00:00:00Z", "status": "ERROR"})
    kaggle.submissions[0]["errorDescription"] = "Column label\nis missing"
    kaggle.submissions[1] |= {"status": "COMPLETE", "publicScore": "0.81234"}
    done = command("scores")
    assert done.returncode == 0, done.stderr
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "ref date run public private message",
        "1000 2026-11-25T00:00 run1 0.81234 - first try",
        "7 2026-11-24T00:00 - error - Column label is missing",
        "all 2 in outputs/scores.csv",
    ]
    rows = read_scores(scores_path())
    assert score_of_file(rows, submission) == "0.81234"
    submission.write_text("image_id,label\n1,1\n")
    assert score_of_file(rows, submission) is None


def test_submissions_sent_at_once_are_all_remembered(kaggle: StandIn, submission: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: send(submission, "run1", f"try {number}"), range(8)))
    rows = read_scores(scores_path())
    assert {row.message for row in rows} == {f"try {number}" for number in range(8)}


def test_an_upload_that_fails_is_no_submission(kaggle: StandIn, submission: Path) -> None:
    kaggle.refusals["upload"] = (403, "", {})
    with pytest.raises(CompetitionError, match=r"submission\.csv could not be uploaded"):
        send(submission, "run1")
    assert kaggle.submissions == []
    assert not scores_path().exists()


def test_a_scores_file_of_another_form_is_named_with_its_line(kaggle: StandIn, command: Command) -> None:
    scores_path().parent.mkdir()
    scores_path().write_text("ref,score\n1,2\n")
    assert command("scores").stderr.startswith("outputs/scores.csv: found columns ref,score, expected ref,date,")


def test_options_for_kaggle_without_kaggle_are_refused(command: Command) -> None:
    done = command("submit", "run1", "-m", "try")
    assert (done.returncode, done.stderr) == (1, "--message, --competition: nothing would be sent; add --kaggle\n")


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # sending is the same for all
def test_a_run_ends_on_kaggle(kaggle: StandIn, command: Command, sample: Path, words: list[str], task: str) -> None:
    for verb in (["folds", *words], ["train", *words, "trainer.limit_train_batches=1"], ["predict", task]):
        done = command(*verb)
        assert done.returncode == 0, done.stderr
    done = command("submit", task, "--kaggle", "-m", "what it is")
    assert done.returncode == 0, done.stderr
    assert list(kaggle.uploads.values()) == [Path(f"outputs/{task}/submission.csv").read_bytes()]
    assert [row.run for row in read_scores(scores_path())] == [task]


# -- push


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "run1" / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "smp.whl").write_bytes(b"wheel")
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "infer.ipynb").write_text(json.dumps({"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    dataset = {"id": "digits-run1", "title": "digits-run1", "licenses": [{"name": "CC0-1.0"}]}
    notebook: dict[str, object] = {"id": "digits-run1-infer", "title": "digits run1 infer", "code_file": "infer.ipynb"}
    notebook |= {"language": "python", "kernel_type": "notebook", "is_private": "true", "enable_internet": "false"}
    notebook |= {"dataset_sources": ["digits-run1"], "competition_sources": ["digits"], "kernel_sources": []}
    (folder / "dataset-metadata.json").write_text(json.dumps(dataset))
    (folder / "kernel-metadata.json").write_text(json.dumps(notebook))
    return folder


def test_a_bundle_becomes_a_private_dataset_and_a_notebook_that_uses_it(
    kaggle: StandIn, command: Command, bundle: Path
) -> None:
    kaggle.statuses = ["BLOBS_RECEIVED"]
    done = command("push", "run1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "data set: https://www.kaggle.com/datasets/ada-l/digits-run1",
        "notebook: https://www.kaggle.com/code/ada-l/digits-run1-infer",
    ]
    [version] = kaggle.datasets["ada-l/digits-run1"]
    assert version["isPrivate"] is True
    files = kaggle.files_of("ada-l/digits-run1")
    assert set(files) == {"weights.safetensors", "infer.ipynb", "wheels.zip"}
    assert zipfile.ZipFile(io.BytesIO(files["wheels.zip"])).read("smp.whl") == b"wheel"
    [notebook] = kaggle.notebooks
    assert notebook["datasetDataSources"] == ["ada-l/digits-run1"]
    assert notebook["competitionDataSources"] == ["digits"]
    assert (notebook["isPrivate"], notebook["enableInternet"]) == (True, False)
    # The notebook was sent after the data set was unpacked.
    assert kaggle.calls[-4:] == ["CreateDataset", "GetDatasetStatus", "GetDatasetStatus", "SaveKernel"]


def test_a_second_push_is_a_new_version(kaggle: StandIn, command: Command, bundle: Path) -> None:
    command("push", "run1")
    (bundle / "weights.safetensors").write_bytes(b"better weights")
    assert command("push", "run1", "-m", "trained longer").returncode == 0
    versions = kaggle.datasets["ada-l/digits-run1"]
    assert [version.get("versionNotes") for version in versions] == [None, "trained longer"]
    assert kaggle.files_of("ada-l/digits-run1")["weights.safetensors"] == b"better weights"


def test_without_a_bundle_it_is_said_how_to_make_one(command: Command) -> None:
    done = command("push", "run1")
    assert done.returncode == 1
    assert done.stderr == "outputs/run1/bundle: no bundle there; make it with `competition bundle run1`\n"


@pytest.mark.parametrize(("name", "content"), [("wheels/kaggle.json", "{}"), ("config.yaml", f"key: {KEY}")])
def test_credentials_in_a_bundle_stay_here(
    kaggle: StandIn, bundle: Path, capfd: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    from competition.push import push

    (bundle / name).write_text(content)
    with pytest.raises(CompetitionError, match="holds credentials; delete it and push again") as refused:
        push("run1")
    assert name in str(refused.value)
    assert KEY not in str(refused.value)
    assert kaggle.uploads == {}


def test_a_dataset_that_kaggle_cannot_unpack_stops_the_push(kaggle: StandIn, command: Command, bundle: Path) -> None:
    kaggle.statuses = ["FAILED"]
    done = command("push", "run1")
    assert done.returncode == 1
    assert done.stderr.startswith("Kaggle: dataset ada-l/digits-run1: failed; see https://www.kaggle.com/datasets/")
    assert kaggle.notebooks == []


# -- credentials and refusals


@pytest.mark.parametrize("place", ["token", "token file", "kaggle.json"])
def test_credentials_are_found_in_kaggles_own_places(
    kaggle: StandIn, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    extended = pytest.importorskip("kaggle.api.kaggle_api_extended")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(extended.KaggleApi, "config", str(folder / "kaggle.json"))  # read when it was imported
    if place == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    elif place == "token file":
        (folder / "access_token").write_text(TOKEN)
    else:
        (folder / "kaggle.json").write_text(json.dumps({"username": USER, "key": KEY}))
    service = KaggleService()
    assert service.user == USER
    assert service.public_scores("digits") == []
    assert service.holds_credentials(f"x{KEY if place == 'kaggle.json' else TOKEN}x".encode())


def test_without_credentials_it_is_said_where_to_put_them(
    kaggle: StandIn, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    extended = pytest.importorskip("kaggle.api.kaggle_api_extended")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(extended.KaggleApi, "config", str(tmp_path / "nowhere.json"))
    done = command("scores")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Kaggle: no valid credentials found; make a token at https://www.kaggle.com/settings")
    assert len(done.stderr.splitlines()) == 1


REFUSALS = [
    (401, {}, "Kaggle refuses the credentials (401); make a token at https://www.kaggle.com/settings/api"),
    (
        403,
        {},
        "(403): No, Sir; join the competition and accept its rules at https://www.kaggle.com/competitions/digits/rules",
    ),
    (404, {}, "(404): No, Sir; it is the last part of the competition's address; give another with --competition NAME"),
    (429, {"Retry-After": "7"}, "(429): No, Sir; too many requests; start again in 7 seconds"),
    (429, {}, "(429): No, Sir; too many requests; start again in some minutes"),
    (400, {}, "(400): No, Sir; see https://www.kaggle.com/competitions/digits"),
    (503, {}, "(503): No, Sir; the fault is on Kaggle's side; try again later"),
]


@pytest.mark.parametrize(("status", "headers", "told"), REFUSALS)
def test_a_refusal_is_one_line_with_a_way_on(
    kaggle: StandIn, command: Command, status: int, headers: dict[str, str], told: str
) -> None:
    for verb, method in (("scores", "ListSubmissions"), ("download", "DownloadDataFiles")):
        kaggle.refusals = {method: (status, "No,\nSir", headers)}
        done = command(verb)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert told in done.stderr
    assert contents(Path("data")) == {}


def test_what_kaggle_answers_is_shown_without_secrets(kaggle: StandIn, command: Command) -> None:
    message = f"Key {KEY} has no access to https://storage/a.zip?signature={SIGNATURE}&more"
    kaggle.refusals["ListSubmissions"] = (403, message, {})
    assert "(403): Key *** has no access to https://storage/a.zip;" in command("scores").stderr


def test_a_service_that_cannot_be_reached_is_told_in_one_line(
    kaggle: StandIn, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")
    for environment in kaggle_env.KaggleEnv:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, environment, "http://127.0.0.1:9")
    done = command("scores")
    assert done.returncode == 1
    assert done.stderr == (
        "Kaggle cannot be reached (ConnectionError); is there a network, and does a notebook have internet on?\n"
    )


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    kaggle: StandIn, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kaggle", None)
    done = command("scores")
    assert done.stderr.startswith("the kaggle package is not installed, or not whole (")
    assert done.stderr.endswith("; install it with `uv sync --extra kaggle`\n")


@pytest.mark.parametrize("given", ["no spaces", "a/b", "../up"])
def test_a_competition_is_one_name(kaggle: StandIn, command: Command, given: str) -> None:
    assert f"--competition: found {given!r}; expected the last part" in command("scores", "--competition", given).stderr


def test_a_project_without_competition_is_told_how_to_name_one(kaggle: StandIn, command: Command) -> None:
    Path("pyproject.toml").unlink()
    assert "or give --competition NAME" in command("scores").stderr
    assert command("scores", "--competition", f"{places.ADDRESS}digits").stdout == "no submission yet\n"


def test_the_shipped_configs_name_no_competition(config_file: Path) -> None:
    assert "kaggle" not in load_config([config_file]).model_dump()

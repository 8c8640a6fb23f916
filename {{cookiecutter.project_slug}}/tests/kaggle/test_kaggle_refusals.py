"""Credentials and refusals: where they are found, what is told, and that nothing secret is."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.config.loading import load_config
from competition.kaggle.api import KaggleService
from competition.support import paths as places
from kaggle_stand_in import KEY, SIGNATURE, TOKEN, USER, StandIn

Command = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize("place", ["token", "token file", "kaggle.json"])
def test_credentials_are_found_in_kaggles_own_places(
    kaggle: StandIn, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
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
    kaggle: StandIn, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    extended = pytest.importorskip("kaggle.api.kaggle_api_extended")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(extended.KaggleApi, "config", str(tmp_path / "nowhere.json"))
    done = kaggle_command("scores")
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
    kaggle: StandIn, kaggle_command: Command, status: int, headers: dict[str, str], told: str
) -> None:
    for verb, method in (("scores", "ListSubmissions"), ("download", "DownloadDataFiles")):
        kaggle.refusals = {method: (status, "No,\nSir", headers)}
        done = kaggle_command(verb)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert told in done.stderr
    assert not list(Path("data").iterdir())


def test_what_kaggle_answers_is_shown_without_secrets(kaggle: StandIn, kaggle_command: Command) -> None:
    message = f"Key {KEY} has no access to https://storage/a.zip?signature={SIGNATURE}&more"
    kaggle.refusals["ListSubmissions"] = (403, message, {})
    assert "(403): Key *** has no access to https://storage/a.zip;" in kaggle_command("scores").stderr


def test_a_service_that_cannot_be_reached_is_told_in_one_line(
    kaggle: StandIn, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")
    for environment in kaggle_env.KaggleEnv:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, environment, "http://127.0.0.1:9")
    done = kaggle_command("scores")
    assert done.returncode == 1
    assert done.stderr == (
        "Kaggle cannot be reached (ConnectionError); is there a network, and does a notebook have internet on?\n"
    )


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    kaggle: StandIn, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kaggle", None)
    done = kaggle_command("scores")
    assert done.stderr.startswith("the kaggle package is not installed, or not whole (")
    assert done.stderr.endswith("; install it with `uv sync --extra kaggle`\n")


@pytest.mark.parametrize("given", ["no spaces", "a/b", "../up"])
def test_a_competition_is_one_name(kaggle: StandIn, kaggle_command: Command, given: str) -> None:
    assert (
        f"--competition: found {given!r}; expected the last part"
        in kaggle_command("scores", "--competition", given).stderr
    )


def test_a_project_without_competition_is_told_how_to_name_one(kaggle: StandIn, kaggle_command: Command) -> None:
    Path("pyproject.toml").unlink()
    assert "or give --competition NAME" in kaggle_command("scores").stderr
    assert kaggle_command("scores", "--competition", f"{places.ADDRESS}digits").stdout == "no submission yet\n"


def test_the_shipped_configs_name_no_competition(config_file: Path) -> None:
    assert "kaggle" not in load_config([config_file]).model_dump()


def test_a_sign_in_that_kaggle_refuses_is_told_in_one_line(
    kaggle: StandIn, kaggle_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    kaggle.refusals["IntrospectToken"] = (503, "No, Sir", {})
    assert kaggle_command("scores").stderr == (
        "Kaggle refuses the sign-in (503): No, Sir; the fault is on Kaggle's side; try again later\n"
    )


def test_git_leaves_out_files_that_hold_credentials(project: Path) -> None:
    push = pytest.importorskip(
        "competition.kaggle.push", reason="the room of bundles was taken out", exc_type=ImportError
    )
    assert set((project / ".gitignore").read_text(encoding="utf-8").splitlines()) >= push.SECRET_NAMES

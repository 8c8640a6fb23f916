"""What the tests of this room share: the stand-in of Kaggle's service, and a command that looks for credentials."""

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from kaggle_stand_in import KEY, SIGNATURE, TOKEN, USER, StandIn, serve

from competition.support import paths as places
from competition.support.optional_rooms import has_room

# What could lead the kaggle package elsewhere than to the stand-in.
OTHER_SETTINGS = ("KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT", "KAGGLE_CONFIG_DIR", "KAGGLE_PROXY")
Command = Callable[..., CompletedProcess[str]]
collect_ignore = [] if has_room("bundle") else ["test_kaggle_push.py"]  # what is sent is a bundle


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Start the stand-in, point the package at it and sign in as a user of it; no test ever sees the real service."""
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")
    home = tmp_path / "home"
    home.mkdir()
    for name in OTHER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(home), "KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY, "no_proxy": "*"}.items():
        monkeypatch.setenv(name, value)
    state = StandIn()
    _, stop = serve(state)
    for environment in kaggle_env.KaggleEnv:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, environment, state.address)
    monkeypatch.setattr("competition.kaggle.training.COMPRESSION", 1)  # others take longer than all else
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(f'[project.urls]\nCompetition = "{places.ADDRESS}digits"\n')
    yield state
    stop()


@pytest.fixture
def kaggle_command(command: Command, tmp_path: Path) -> Command:
    """Run a command, then look for the credentials in what it printed and in every file that it left."""

    def run(*arguments: object) -> CompletedProcess[str]:
        done = command(*arguments)
        left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        for secret in (KEY, TOKEN, SIGNATURE):
            assert secret not in done.stdout + done.stderr
            assert secret.encode() not in left
        return done

    return run

"""The same config in the project's folder and in a Kaggle notebook, whose folders are made in a temporary one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from competition.config.loading import dump_config, load_config
from competition.data.folds import folds_path
from competition.support import paths as places
from competition.support.errors import CompetitionError
from competition.support.paths import Places, competition_in, here

IN_NOTEBOOK = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the root folder of a notebook, /kaggle on the real one, and work in its working folder."""
    root = tmp_path / "kaggle"
    (root / "input").mkdir(parents=True)
    (root / "working").mkdir()
    monkeypatch.chdir(root / "working")
    return root


@pytest.fixture
def in_notebook(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the whole program take this machine for a notebook."""
    monkeypatch.setattr(places, "KAGGLE", notebook)
    monkeypatch.setenv(places.NOTEBOOK, "Batch")
    return notebook


def mount(notebook: Path, name: str) -> Path:
    folder = notebook / "input" / name
    folder.mkdir(parents=True)
    (folder / "sample_submission.csv").touch()
    return folder


def test_elsewhere_folders_are_the_projects_own(notebook: Path) -> None:
    for found in (here({}, notebook), here(IN_NOTEBOOK, notebook / "nowhere")):
        assert found == Places(None)
        assert (found.outputs, found.data(Path("data"))) == (Path("outputs"), Path("data"))
        assert found.folds(Path("data")) == Path("data/folds.csv")


@pytest.mark.parametrize("name", ["digits", "competitions/digits"])
def test_a_notebook_reads_its_input_and_writes_what_is_kept(notebook: Path, name: str) -> None:
    mounted = mount(notebook, name)
    found = here(IN_NOTEBOOK, notebook)
    assert found.outputs == notebook / "working" / "outputs"
    assert found.data(Path("data")) == mounted
    assert found.folds(mounted) == notebook / "working" / "folds.csv"
    (mounted / "folds.csv").touch()
    assert found.folds(mounted) == mounted / "folds.csv"


def test_a_folder_that_is_there_or_the_notebooks_is_taken_as_it_is(notebook: Path) -> None:
    mount(notebook, "digits")
    found = here(IN_NOTEBOOK, notebook)
    Path("data").mkdir()
    for folder in (Path("data"), notebook / "working" / "data", notebook / "input" / "misspelt"):
        assert found.data(folder) == folder


def test_a_folder_of_the_other_machine_is_not_looked_for_on_this_one(notebook: Path) -> None:
    mounted = mount(notebook, "digits")
    assert here(IN_NOTEBOOK, notebook).data(Path("/mnt/of-my-machine/digits")) == mounted
    assert here({}, notebook).data(Path("/kaggle/input/digits")) == Path("data")


def test_of_several_inputs_the_competitions_own_is_read(notebook: Path) -> None:
    expected, _ = mount(notebook, "digits"), mount(notebook, "other-digits")
    found = here(IN_NOTEBOOK, notebook)
    with pytest.raises(CompetitionError, match=r"data\.dir: data is not there, and several.*data\.dir=FOLDER"):
        found.data(Path("data"))
    Path("pyproject.toml").write_text(f'[project.urls]\nCompetition = "{places.ADDRESS}digits"\n')
    assert found.data(Path("data")) == expected


def test_without_any_input_the_folder_that_is_missing_is_named(notebook: Path) -> None:
    assert here(IN_NOTEBOOK, notebook).data(Path("data")) == Path("data")


def test_a_config_is_the_same_on_both_machines(
    config_file: Path, in_notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = mount(in_notebook, "digits")
    there = load_config([config_file])
    assert there.data.dir == mounted
    assert there.run_folder == in_notebook / "working" / "outputs" / there.name
    assert folds_path(there) == in_notebook / "working" / "folds.csv"
    kept = dump_config(there)
    monkeypatch.delenv(places.NOTEBOOK)
    assert yaml.safe_load(kept) == yaml.safe_load(dump_config(load_config([config_file])))
    Path("kept.yaml").write_text(kept)
    assert load_config([Path("kept.yaml")]).data.dir == Path("data")


def test_commands_read_the_input_and_write_beside_the_results(
    command: Callable[..., CompletedProcess[str]], config_file: Path, in_notebook: Path, sample: Path
) -> None:
    shutil.copytree(sample, in_notebook / "input" / "digits")
    before = {path.name for path in (in_notebook / "input" / "digits").iterdir()}
    for verb in ("check", "folds"):
        done = command(verb, config_file)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"written to {in_notebook / 'working' / 'folds.csv'}"
    assert {path.name for path in (in_notebook / "input" / "digits").iterdir()} == before


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("digits-2026", "digits-2026"),
        ("digits/", "digits"),
        ("{{ name }}", None),
        ("", None),
    ],
)
def test_the_competition_is_the_last_part_of_its_address(tmp_path: Path, address: str, name: str | None) -> None:
    file = tmp_path / "pyproject.toml"
    assert competition_in(file) is None
    file.write_text(f'[project.urls]\nCompetition = "{places.ADDRESS}{address}"\n')
    assert competition_in(file) == name


def test_a_broken_pyproject_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project")
    with pytest.raises(CompetitionError, match=r"pyproject\.toml: not a TOML file"):
        competition_in(tmp_path / "pyproject.toml")

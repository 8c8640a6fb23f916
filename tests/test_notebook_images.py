"""Kaggle's and Colab's notebook images: an install changes nothing that they ship, and everything works on theirs.

`images/*.txt` are names and versions of what an image has; with `--images`, environments are made of them.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uv
from baking import PROJECT, REPOSITORY, run
from competition.bundle.wheels import SHIPPED, shipped

PYTHONS = {"kaggle": "3.12", "colab": "3.13"}
PYPROJECT = REPOSITORY / PROJECT / "pyproject.toml"
ADDED = {"faster-coco-eval", "lightning-utilities", "pytorch-lightning", "segmentation-models-pytorch", "torchmetrics"}
PACKAGE = "competition"
OF_TORCH = ("nvidia-", "cuda-")  # an image has CUDA's libraries as its own build of torch needs them
# As in the inner project's tests: an epoch takes a second.
TINY = (
    "model.encoder=test_resnet data.image_size=64 data.batch_size=4 data.num_workers=0 trainer.max_epochs=1 "
    "trainer.accelerator=cpu"
)


class Image(NamedTuple):
    """A notebook's image: the Python of an environment that has its versions, and these."""

    version: str  # of its Python
    python: Path
    versions: dict[str, str]


def versions_in(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def uv_pip(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return run(uv.find_uv_bin(), "pip", *words, cwd=REPOSITORY)


def resolve(python: str, *words: str | Path) -> dict[str, str]:
    """Return what the project would have installed for a Python, in wheels."""
    options = [
        "--python-version",
        python,
        "--only-binary",
        ":all:",
        "--no-header",
        "--no-annotate",
        "--quiet",
        "--python",
        sys.executable,
    ]
    done = uv_pip("compile", *options, PYPROJECT, *words)
    if "Failed to fetch" in done.stderr:
        pytest.skip(f"no network: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return dict(line.partition(" ;")[0].split("==") for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", PYTHONS)
def test_an_install_changes_nothing_that_an_image_ships(name: str) -> None:
    path = REPOSITORY / "tests" / "images" / f"{name}.txt"
    found = resolve(PYTHONS[name], path)  # both together: what the image has fits the rest of the image, too
    has = versions_in(path)
    assert has == {package: version for package, version in found.items() if package in has}
    assert {package for package in found if package not in has and not package.startswith(OF_TORCH)} == ADDED


@pytest.mark.parametrize("python", ["3.11", *PYTHONS.values()])
def test_the_floors_fit_each_other(python: str) -> None:
    found = resolve(python, "--resolution", "lowest-direct")
    assert found["rich"] == "13.9.0"  # the lowest that pyproject.toml allows


def test_a_bundle_counts_on_what_the_images_ship() -> None:
    assert list(SHIPPED) == list(PYTHONS.values())
    for name, python in PYTHONS.items():
        assert shipped(python).items() <= versions_in(REPOSITORY / "tests" / "images" / f"{name}.txt").items()


@pytest.fixture(scope="session")
def image_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Image]]:
    """Return a function that makes an environment of an image's versions, once; they go with the session."""
    images: dict[str, Image] = {}
    folder = tmp_path_factory.mktemp("images")

    def image_once(name: str) -> Image:
        if name not in images:
            images[name] = make_image(name, folder / name)
        return images[name]

    yield image_once
    shutil.rmtree(folder)


def make_image(name: str, folder: Path) -> Image:
    version = PYTHONS[name]
    words = [uv.find_uv_bin(), "venv", "--python", version, folder]
    made = run(*words, cwd=REPOSITORY, env=os.environ | {"PYENV_VERSION": version})  # pyenv hides all but one Python
    if made.returncode != 0:
        pytest.skip(f"Python {version} cannot be found: {made.stderr.strip()}")
    python, listed = folder / "bin" / "python", REPOSITORY / "tests" / "images" / f"{name}.txt"
    done = uv_pip("install", "--compile-bytecode", "--python", python, "--requirements", listed)
    assert done.returncode == 0, done.stderr
    return Image(version, python, versions_in(listed))


@pytest.fixture(params=PYTHONS)
def image(request: pytest.FixtureRequest, image_once: Callable[[str], Image]) -> Image:
    if not request.config.getoption("--images"):
        pytest.skip("takes half an hour and 16 GB of disk: pass --images")
    return image_once(request.param)


@pytest.fixture
def workplace(bake: Path, tmp_path: Path) -> Path:
    """Copy the task's bake and make it a repository, as a user's own."""
    folder = shutil.copytree(bake, tmp_path / "theirs" / bake.name)
    for words in (
        ["init", "-q"],
        ["add", "--all"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        assert run("git", *words, cwd=folder).returncode == 0
    return folder


def inside(image: Image) -> dict[str, str]:
    """Return the variables of a process in an image's environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "PYTHON", "VIRTUAL_ENV"))}
    path = f"{image.python.parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


def installed(image: Image) -> dict[str, str]:
    listed = uv_pip("freeze", "--python", image.python).stdout.splitlines()
    return dict(line.lower().split("==") for line in listed if "==" in line)


@pytest.mark.slow
def test_the_lines_of_the_readme_train_in_a_notebook_and_change_nothing_there(
    image: Image, workplace: Path, task: str, tmp_path: Path
) -> None:
    lines = re.findall(r"^[!%].*$", (workplace / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 3
    script = "\n".join(line.removeprefix("!").removeprefix("%") for line in lines)
    script = re.sub(r"https://\S+", str(workplace), script)
    script = script.replace(" configs/trainer/kaggle_t4x2.yaml", f" {TINY} inference.python={image.version} fold=0")
    script = script.replace("\ncompetition run", "\ncompetition sample && competition run")
    before = installed(image)
    done = run("bash", "-euxc", script, cwd=tmp_path, env=inside(image))
    assert done.returncode == 0, done.stdout + done.stderr
    after = installed(image)
    assert {name: after.get(name) for name in before} == before
    assert {name for name in after if name not in before} <= ADDED
    outputs = tmp_path / workplace.name / "outputs" / task
    added = [name for name in after if name not in before]  # an offline notebook starts without them
    assert uv_pip("uninstall", "--python", image.python, *added, PACKAGE).returncode == 0
    words = [image.python, outputs / "bundle" / "infer.py", tmp_path / workplace.name / "data"]
    done = run(*words, cwd=tmp_path, env=inside(image))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "submission.csv").read_bytes() == (outputs / "submission.csv").read_bytes()


@pytest.mark.slow
def test_a_bake_passes_its_own_tests_on_the_versions_of_an_image(image: Image, workplace: Path) -> None:
    words = ["install", "--python", image.python, "--editable", workplace, "hypothesis", "pytest-xdist"]
    done = uv_pip(*words)
    assert done.returncode == 0, done.stderr
    words = ["-m", "pytest", "-m", "not slow", "-q", "-p", "no:cacheprovider", "-n", "0"]
    done = run(image.python, *words, cwd=workplace, env=inside(image))
    assert done.returncode == 0, done.stdout + done.stderr

"""The packages that a bundle brings along, as Kaggle's notebook image lacks them: downloaded here, unpacked there."""

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from competition.support.errors import CompetitionError

# What of this project's requirements Kaggle's image has (August 2026, Python 3.12), with what these ask for.
ON_KAGGLE = (
    "albumentations filelock huggingface-hub jinja2 kaggle matplotlib numpy opencv-python-headless packaging pandas "
    "pillow pydantic pydicom pyyaml requests rich safetensors scikit-image scikit-learn scipy six tifffile timm torch "
    "torchmetrics torchvision tqdm transformers typer"
)
NOT_TO_PREDICT = {"pytorch-lightning", "faster-coco-eval"}  # they train and score
KAGGLE_PYTHON = "3.12"
KAGGLE = {  # of which requirements may be conditions
    "extra": "",
    "python_version": KAGGLE_PYTHON,
    "python_full_version": f"{KAGGLE_PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
}
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "any")


def missing_packages(pyproject: Path) -> dict[str, str]:
    """Return name and installed version of what the project's pyproject.toml asks for and Kaggle's image lacks, and of
    what these packages ask for themselves."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    waiting = [*project.get("dependencies", [])]
    found: dict[str, str] = {}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate(KAGGLE):
            continue
        if name in {*ON_KAGGLE.split(), *NOT_TO_PREDICT, *found}:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise CompetitionError(f"{pyproject}: {name} is not installed here; run `uv sync`") from None
        found[name] = package.version
        waiting += package.requires or []
    return dict(sorted(found.items()))


def download_wheels(packages: dict[str, str], folder: Path) -> list[str]:
    """Download wheels for Kaggle's Python; return a line where that failed, as it does without a network."""
    if not packages:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}=={version}" for name, version in packages.items()]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", KAGGLE_PYTHON, *platforms, "--dest", str(folder)]
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--retries", "1", *options, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    shutil.rmtree(folder)
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
    return [
        f"warning: no wheels/: {', '.join(wanted)} could not be downloaded ({reason}); Kaggle's image lacks them: make "
        "the bundle again with a network"
    ]


def unpack_wheels(folder: Path, target: Path) -> list[str]:
    """Unpack the wheels whose packages cannot be imported here, and import them from `target` from now on; return their
    names. A wheel is a zip file of what is imported, so that nothing is installed and no network asked."""
    unpacked = []
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if not _can_be_imported(archive.namelist()):
                archive.extractall(target)
                unpacked.append(wheel.name)
    if unpacked:
        sys.path.append(str(target))  # last: what is installed has been tried with the rest of what is installed
        importlib.invalidate_caches()
    return unpacked


def _can_be_imported(names: Iterable[str]) -> bool:
    packages = {name.partition("/")[0] for name in names if name.endswith("/__init__.py")}
    modules = {package for package in packages if package.isidentifier()}
    return bool(modules) and all(importlib.util.find_spec(module) is not None for module in modules)


def _pip() -> list[str]:
    """Return the words that start pip: environments made by uv have none of their own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    return [uv, "tool", "run", "pip"] if uv else [sys.executable, "-m", "pip"]

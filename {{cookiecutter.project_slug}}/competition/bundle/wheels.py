"""The packages that a bundle brings along, as the notebook's image lacks them: downloaded here, unpacked there."""

import atexit
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from competition.support.errors import CompetitionError

# What a notebook's image has of this project's requirements and of what these ask for, by its Python: Kaggle's image
# of August 2026 is of 3.12; of 3.13 is what Colab has, on which Kaggle's next one will be built.
SHIPPED = {
    "3.12": (
        "albumentations==2.0.8 filelock==3.29.0 huggingface-hub==1.4.1 jinja2==3.1.6 kaggle==2.0.2 matplotlib==3.10.0 "
        "numpy==2.0.2 opencv-python-headless==4.13.0.92 packaging==26.2 pandas==2.2.2 pillow==11.3.0 pydantic==2.12.3 "
        "pydicom==3.0.1 pyyaml==6.0.3 requests==2.32.4 rich==13.9.4 safetensors==0.7.0 scikit-image==0.25.2 "
        "scikit-learn==1.6.1 scipy==1.16.3 six==1.17.0 tifffile==2026.4.11 timm==1.0.26 torch==2.10.0 "
        "torchvision==0.25.0 tqdm==4.67.3 transformers==5.0.0 typer==0.24.2"
    ),
    "3.13": (
        "albumentations==2.0.8 filelock==3.29.0 huggingface-hub==1.17.0 jinja2==3.1.6 kaggle==2.0.2 "
        "matplotlib==3.10.0 numpy==2.1.3 opencv-python-headless==5.0.0.93 packaging==26.2 pandas==2.2.3 "
        "pillow==11.3.0 pydantic==2.12.3 pyyaml==6.0.3 requests==2.32.4 rich==13.9.4 safetensors==0.7.0 "
        "scikit-image==0.25.2 scikit-learn==1.6.1 scipy==1.16.3 six==1.17.0 tifffile==2026.4.11 timm==1.0.27 "
        "torch==2.11.0 torchvision==0.26.0 tqdm==4.67.3 transformers==5.9.0 typer==0.25.1"
    ),
}
NOT_TO_PREDICT = {"pytorch-lightning", "faster-coco-eval"}  # they train and score
OLD_NAMES = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
GLIBC = 35  # of both images: 2.35, so that wheels built for an older one run there


def shipped(python: str) -> dict[str, str]:
    """Return name and version of what the image of this Python has."""
    return {name: version for name, _, version in (word.partition("==") for word in SHIPPED[python].split())}


def missing_packages(pyproject: Path, python: str, more: Iterable[str] = ()) -> dict[str, str]:
    """Return name and installed version of what the project's pyproject.toml and `more` ask for and the image of this
    Python has not, or not in a version that will do, and of what these packages ask for themselves."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    waiting = [*project.get("dependencies", []), *more]
    has, conditions, found = shipped(python), _environment(python), dict[str, str]()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate(conditions):
            continue
        if name in {*NOT_TO_PREDICT, *found} or (name in has and requirement.specifier.contains(has[name])):
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise CompetitionError(f"{pyproject}: {name} is not installed here; run `uv sync`") from None
        found[name] = package.version
        waiting += package.requires or []
    return dict(sorted(found.items()))


def download_wheels(packages: dict[str, str], folder: Path, python: str) -> list[str]:
    """Download wheels for a Python; return a line where that failed, as it does without a network."""
    if not packages:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}=={version}" for name, version in packages.items()]
    platforms = [word for platform in _platforms() for word in ("--platform", platform)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python, *platforms, "--dest", str(folder)]
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--retries", "1", *options, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reasons = done.stderr.strip().splitlines() or ["no reason given"]
    if done.returncode == 0:
        reasons = [f"{wheel.name} is not for it" for wheel in folder.iterdir() if not _fits(wheel, python)]
    if not reasons:
        return []
    shutil.rmtree(folder)
    return [
        f"warning: no wheels/: {', '.join(wanted)} could not be downloaded for Python {python} "
        f"({reasons[-1][:200]}); the image lacks them: make the bundle again with a network"
    ]


def import_wheels(folder: Path) -> None:
    """Import what lies in wheels/ and is not installed here, from a folder that goes when this process ends.

    To be called before anything else is imported: a wheel may stand for a version that is too old. Raises
    CompetitionError where one is needed and was made for another Python, or its package is imported already.
    """
    if folder.is_dir():
        target = Path(tempfile.mkdtemp(prefix="wheels."))
        atexit.register(shutil.rmtree, target, ignore_errors=True)
        unpack_wheels(folder, target)


def unpack_wheels(folder: Path, target: Path) -> list[str]:
    """Unpack the wheels whose packages are not installed here in the same version, and import them from `target` from
    now on; return their names. A wheel is a zip file of what is imported: nothing is installed, no network asked.

    For another Python than this one's they are of no use: what is installed serves, and the bundle proves itself.
    """
    unpacked = []
    for wheel in sorted(folder.glob("*.whl")):
        name, version, _, tags = parse_wheel_filename(wheel.name)
        is_for_this = not tags.isdisjoint(sys_tags())
        with _opened(wheel) as archive:
            modules, here = _modules(archive.namelist()), _installed(name)
            if here == version or (not is_for_this and here) or (here is None and _can_be_imported(modules)):
                continue
            _refuse(wheel, is_for_this, bool(here and modules & set(sys.modules)))
            archive.extractall(target / ("beside" if here is None else "instead"))
        unpacked.append(wheel.name)
    if (target / "instead").is_dir():
        sys.path.insert(0, str(target / "instead"))
    if (target / "beside").is_dir():
        sys.path.append(str(target / "beside"))  # last: what is installed has been tried with what else is
    importlib.invalidate_caches()
    return unpacked


def _refuse(wheel: Path, is_for_this: bool, is_imported: bool) -> None:
    """Raise CompetitionError if a wheel is needed and cannot be imported in this process."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not is_for_this:
        known = f"bundle again with inference.python={python}" if python in SHIPPED else f"expected one of {[*SHIPPED]}"
        raise CompetitionError(f"{wheel}: was made for another Python than {python}, which is this one; {known}")
    if is_imported:
        raise CompetitionError(
            f"{wheel}: another version has been imported already; start again, with nothing imported before the bundle"
        )


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        raise CompetitionError(f"{wheel}: cannot be unpacked ({error}); upload the bundle again") from None


def _modules(names: Iterable[str]) -> set[str]:
    packages = {name.partition("/")[0] for name in names if name.endswith("/__init__.py")}
    return {package for package in packages if package.isidentifier()}


def _can_be_imported(modules: set[str]) -> bool:
    return bool(modules) and all(importlib.util.find_spec(module) is not None for module in modules)


def _installed(name: str) -> Version | None:
    try:
        return Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None


def _fits(wheel: Path, python: str) -> bool:
    """Return whether one of a wheel's tags is one of the image's."""
    return bool(parse_wheel_filename(wheel.name)[3] & _tags(python))


def _tags(python: str) -> set[Tag]:
    number = tuple(map(int, python.split(".")))
    return {*cpython_tags(number, platforms=_platforms()), *compatible_tags(number, platforms=_platforms())}


def _platforms() -> list[str]:
    return [*(f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)), *OLD_NAMES, "any"]


def _environment(python: str) -> dict[str, str]:
    """Return of the image of a Python what requirements may be conditional on."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
    return {"extra": "", "python_version": python, "python_full_version": f"{python}.0", **linux}


def _pip() -> list[str]:
    """Return the words that start pip: environments made by uv have none of their own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    return [uv, "tool", "run", "pip"] if uv else [sys.executable, "-m", "pip"]

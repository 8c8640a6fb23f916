"""What lies where in a bundle, and whether it is whole. Only the standard library: it is read before anything else."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from competition.support.errors import CompetitionError
from competition.support.on_kaggle import DATASET, KERNEL, name_on_kaggle, notebook_metadata

MANIFEST = "manifest.json"
SCRIPT, NOTEBOOK = "infer.py", "infer.ipynb"
RECIPE = "blend.yaml"  # sources, weights and mean, where several runs predict
RUNS = "runs"  # <run>/config.yaml and a file of weights for each training
CHECK = "check"  # <run>/<training>.npz: stored predictions, and their images
IMAGES = "images"  # <training>/: the files of each image, and which these are, in the order of predictions
SOURCES = "sources.json"
MEMBERS = ".members.json"  # beside <training>.npz: the images of its groups
COLUMNS = ".columns.csv"  # beside <training>.npz: what the networks were told of its images
UNSEEN = "unseen.npz"  # what stands for an image that cannot be read
WHEELS = "wheels"
PARTS = "parts"  # bundles of other runs, whole, whose rows are handed in beside this one's
STAGES = "stages"  # bundles of other runs, whole, which say what this one's see of an image
CHANGED_LATER = {MANIFEST, DATASET, KERNEL}  # `push` writes the account's name into the last two


def write_manifest(
    folder: Path, runs: dict[str, dict[str, Any]], competition: str | None, overrides: Sequence[str] = ()
) -> None:
    """List the runs, the values that were given by hand, and the sha256 sum of every file."""
    sums = {name: _sha256(folder / name) for name in sorted(_files(folder))}
    values = {"competition": competition, "overrides": list(overrides), "runs": runs, "files": sums}
    (folder / MANIFEST).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return `competition` (its name on Kaggle, or None), `runs` by name (`classes`, `trainings`) and `files`.

    Raises CompetitionError if a file is missing, was changed or was added.
    """
    values = _read(folder)
    _compare(folder, values["files"], values["files"])
    return values


def check_code(folder: Path) -> None:
    """Do as `read_manifest`, but look at the contents of Python files only: quick, and before any of them is imported.

    A module that was added, as a yaml.py beside infer.py, would be run in place of the one that is meant. What this
    module itself or infer.py was changed into, no manifest can tell.
    """
    sums = _read(folder)["files"]
    _compare(folder, sums, [name for name in sums if name.endswith(".py")])


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        files, runs = values["files"], values["runs"]
        if not isinstance(files, dict) or not all({"classes", "trainings"} <= set(about) for about in runs.values()):
            raise ValueError("it does not name files and runs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CompetitionError(f"{path}: cannot be read ({reason}); is this the folder of a bundle?") from None
    return values


def _compare(folder: Path, sums: dict[str, str], names: Iterable[str]) -> None:
    """Compare what lies in a folder with the names of `sums`, and the contents of the files `names` with their sums."""
    if added := sorted(set(_files(folder)) - set(sums)):
        raise CompetitionError(
            f"{folder / added[0]}: is in the bundle, though {MANIFEST} does not name it; delete it, or make the bundle "
            "again"
        )
    for name, expected in ((name, sums[name]) for name in names):
        if not (folder / name).is_file():
            raise CompetitionError(f"{folder / name}: is missing, though {MANIFEST} names it; upload the bundle again")
        if _sha256(folder / name) != expected:
            raise CompetitionError(f"{folder / name}: is not the file that {MANIFEST} describes; upload it again")


def overrides_of(folder: Path) -> list[str] | None:
    """Return the values that were given by hand when a bundle was made; None where there is no bundle."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["overrides"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[str]:
    """List all that is no folder, and links to folders, which could hold modules as well."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        found += [Path(place, name).relative_to(folder).as_posix() for name in [*files, *links]]
    return [name for name in found if name not in CHANGED_LATER]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_metadata(bundle: Path, run: str, competition: str | None) -> None:
    """Write Kaggle's two files of metadata for a bundle."""
    name = name_on_kaggle(competition or "competition", run)
    dataset = {"id": name, "title": name, "licenses": [{"name": "other"}]}
    notebook = notebook_metadata(
        f"{name}-infer",
        NOTEBOOK,
        has_internet=False,
        datasets=[name],
        competitions=[competition] if competition else [],
    )
    for file, values in ((DATASET, dataset), (KERNEL, notebook)):
        (bundle / file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

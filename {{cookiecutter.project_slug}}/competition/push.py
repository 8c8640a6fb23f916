"""`competition push RUN`: a run's bundle to Kaggle, as a private data set and the notebook that uses it. No torch.

Kaggle's two files of metadata lie in the bundle. An `id`, or a data set in the notebook's `dataset_sources`, without
an owner before it gets the account's name when it is sent: the bundle is made where nobody is signed in.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError
from competition.files import replacing
from competition.kaggle_api import KaggleService
from competition.manifest import BUNDLE, DATASET, KERNEL, NOTEBOOK
from competition.places import here

SECRET_NAMES = {  # .gitignore has them, too
    "kaggle.json",
    "access_token",
    "access_token.txt",
    "credentials.json",
    ".env",
    ".netrc",
}
LARGEST_SEARCHED = 1 << 22  # bytes; weights and images are larger, or are no text


def write_metadata(bundle: Path, run: str, competition: str | None) -> None:
    """Write Kaggle's two files of metadata for a bundle."""
    name = _name_on_kaggle(competition or "competition", run)
    dataset = {"id": name, "title": name, "licenses": [{"name": "other"}]}
    notebook = {
        "id": f"{name}-infer",
        "title": f"{name}-infer",
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": "true",
        "enable_gpu": "true",
        "enable_internet": "false",
        "dataset_sources": [name],
        "competition_sources": [competition] if competition else [],
        "kernel_sources": [],
    }
    for file, values in ((DATASET, dataset), (KERNEL, notebook)):
        (bundle / file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _name_on_kaggle(*given: str) -> str:
    """Return 6 to 50 letters, digits and hyphens that are other ones for every other competition or run."""
    parts = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in given]
    name = "-".join(parts)
    if parts == list(given) and 6 <= len(name) <= 40:
        return name
    # What was changed or is cut off still tells two runs apart.
    told_apart = hashlib.sha256("\0".join(given).encode()).hexdigest()[:6]
    return "-".join(filter(None, (parts[0][:12].strip("-"), parts[1][:20].strip("-"), told_apart)))


def push(run: str, message: str | None = None) -> list[str]:
    """Send outputs/RUN/bundle/ and start its notebook; return lines that say where both are."""
    bundle = _find_bundle(run)
    dataset, notebook = _read(bundle / DATASET, "id", "title", "licenses"), _read(bundle / KERNEL, "id", "code_file")
    service = KaggleService()
    _refuse_secrets(bundle, service)
    owned_dataset = {**dataset, "id": _owned(dataset["id"], service.user)}
    sources = [_owned(source, service.user) for source in notebook.get("dataset_sources", [])]
    owned_notebook = {**notebook, "id": _owned(notebook["id"], service.user), "dataset_sources": sources}
    if owned_dataset["id"] not in sources:
        raise CompetitionError(
            f"{bundle / KERNEL}: dataset_sources: found {sources}; expected {owned_dataset['id']!r} among them, as "
            f"{DATASET} names it"
        )
    _write(bundle / DATASET, dataset, owned_dataset)
    _write(bundle / KERNEL, notebook, owned_notebook)
    address = service.push_dataset(owned_dataset["id"], bundle, message or f"run {Path(run).name}")
    return [f"data set: {address}", f"notebook: {service.push_notebook(owned_notebook['id'], bundle)}"]


def _find_bundle(run: str) -> Path:
    folders = [here().outputs / run, Path(run)]
    for folder in folders:
        if (folder / BUNDLE).is_dir():
            return folder / BUNDLE
    raise CompetitionError(f"{folders[0] / BUNDLE}: no bundle there: a folder with {DATASET} and {KERNEL}")


def _read(path: Path, *needed: str) -> dict[str, Any]:
    """Read a file of metadata, which must have some keys."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CompetitionError(
            f"{path}: cannot be read ({error.strerror}); make the bundle again with `competition bundle`"
        ) from None
    except ValueError as error:
        raise CompetitionError(f"{path}: not a JSON file: {error}") from None
    absent = [key for key in needed if not isinstance(values, dict) or not values.get(key)]
    if absent:
        raise CompetitionError(f"{path}: {absent[0]} is missing; make the bundle again")
    return values


def _owned(name: str, owner: str) -> str:
    return name if "/" in name else f"{owner}/{name}"


def _write(path: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    if before != after:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(after, indent=2) + "\n", encoding="utf-8")


def _refuse_secrets(bundle: Path, service: KaggleService) -> None:
    """Stop before credentials that came into the bundle become part of a data set."""
    for path in sorted(file for file in bundle.rglob("*") if file.is_file()):
        is_searched = path.stat().st_size <= LARGEST_SEARCHED
        if path.name in SECRET_NAMES or (is_searched and service.holds_credentials(path.read_bytes())):
            raise CompetitionError(f"{path}: holds credentials; delete it and push again")

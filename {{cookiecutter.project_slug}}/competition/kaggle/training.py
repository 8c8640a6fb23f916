"""`competition push --train CONFIG...`: the same `competition run` in a notebook on Kaggle's GPUs. No torch.

The code travels in the notebook itself, so that it can be neither an older version nor not yet unpacked. A session is a
notebook of its own, NAME-train-1, NAME-train-2, ...: each has the output of the one before it as an input. No data is
needed here: it is the notebook's input, too.
"""

import base64
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from competition.config.loading import load_config, with_bases
from competition.config.settings import Config
from competition.data.extra_sets import pseudo_files, ways_of_looking
from competition.data.folds import folds_path
from competition.files.crops import crops_file
from competition.files.maps import maps_index
from competition.kaggle.api import UNDER_WAY, KaggleService, competition_name
from competition.kaggle.push import refuse_secrets
from competition.kaggle.session import JOB, Job
from competition.runs.provenance import git_state
from competition.support.errors import CompetitionError
from competition.support.on_kaggle import KERNEL, T4, name_on_kaggle, notebook_metadata
from competition.support.paths import PACKAGE

PRESETS = Path("configs/trainer")
LEFT_OUT = (
    "bundle"  # a room without which `run` makes none, which would have the weights once more: bundle what came home
)
PRESET, ONE_GPU = PRESETS / "kaggle_t4x2.yaml", PRESETS / "gpu.yaml"
MAX_TIME = "trainer.max_time=00:08:30:00"  # sessions end after 9 or 12 hours, and what is not saved is lost
MOST_BYTES = 900_000  # of a notebook, which Kaggle takes up to a megabyte of
COMPRESSION = 6  # of xz: the code takes most of that, what it leaves is for the user's own files
CODE_FILE = "train.ipynb"
GAP = 2  # a notebook of the row may have been deleted
CELL = """# Made by `competition push --train`: trains, stops in time; `competition fetch RUN` brings home what it left.
import base64, io, subprocess, sys, tarfile, tempfile

code = tempfile.mkdtemp()
with tarfile.open(fileobj=io.BytesIO(base64.b64decode(ARCHIVE))) as archive:
    archive.extractall(code, filter="data")
command = [sys.executable, "-u", "-m", "competition.kaggle.session"]
with subprocess.Popen(command, cwd=code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as session:
    for line in session.stdout:
        print(line, end="", flush=True)
if session.returncode:
    raise SystemExit(f"the training could not begin (exit {session.returncode}); see above")
"""


def push_training(
    paths: list[Path],
    overrides: list[str],
    accelerator: str | None = None,
    competition: str | None = None,
    datasets: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """Start the training of a config on Kaggle; return the notebook's name, and lines that say where it is.

    `datasets` are inputs of the notebook beside the competition's files.
    """
    name, accelerator = competition_name(competition), accelerator or T4
    paths, overrides, config = _with_preset(paths, overrides, accelerator)
    files = {**_code(paths, config), **_named(config)}
    service = KaggleService()
    refuse_secrets(files.values(), service)
    series = training_name(service, name, config.name)
    number, former = _next(service, series, config.name)
    commit, dirty = git_state()
    data_dir = config.model_dump(mode="json")["data"]["dir"]
    job = Job(config.name, [*map(_inside, paths), *overrides], data_dir, commit, dirty, former)
    notebook = f"{series}-{number}"
    quota = service.gpu_quota()
    metadata = notebook_metadata(
        notebook,
        CODE_FILE,
        has_internet=True,
        accelerator=accelerator,
        datasets=datasets,
        competitions=[name],
        notebooks=[former] if former else [],
    )
    address = _send(service, metadata, _notebook(files, job))
    begun = f"goes on from {former}" if former else "begins anew"
    lines = [f"notebook: {address}", f"on {accelerator}; {begun}; then `competition fetch {config.name}`"]
    return notebook, [*([quota] if quota else []), *lines]


def training_name(service: KaggleService, competition: str, run: str) -> str:
    """Return what the notebooks of a run are called, but for their numbers."""
    return f"{service.user}/{name_on_kaggle(competition, run)}-train"


def sessions(service: KaggleService, series: str) -> dict[str, str]:
    """Return the notebooks of a run that there are, the newest first, and how far each is."""
    found: dict[str, str] = {}
    number = missing = 0
    while missing < GAP:
        number += 1
        status = service.notebook_status(f"{series}-{number}")
        missing = missing + 1 if status is None else 0
        if status is not None:
            found[f"{series}-{number}"] = status
    return dict(reversed(found.items()))


def newest_output(service: KaggleService, found: dict[str, str], run: str) -> tuple[str, dict[str, str]] | None:
    """Return the newest session that left something of a run, and its files; one that failed early left nothing."""
    for notebook in found:
        files = service.notebook_files(notebook)
        if any(file.startswith(f"outputs/{run}/") for file in files):
            return notebook, files
    return None


def _next(service: KaggleService, series: str, run: str) -> tuple[int, str | None]:
    """Return the number of the next session and the notebook that it goes on from."""
    found = sessions(service, series)
    if running := [notebook for notebook, status in found.items() if status in UNDER_WAY]:
        raise CompetitionError(
            f"Kaggle: {running[0]} is {found[running[0]]}; wait for it, or cancel it at "
            f"https://www.kaggle.com/code/{running[0]}"
        )
    number = max((int(notebook.rpartition("-")[2]) for notebook in found), default=0) + 1
    output = newest_output(service, found, run)
    return number, output and output[0]


def _with_preset(paths: list[Path], overrides: list[str], accelerator: str) -> tuple[list[Path], list[str], Config]:
    """Add the preset of the accelerator, unless one is given, and a time limit, unless the preset has one."""
    preset = PRESET if accelerator == T4 else ONE_GPU
    if not any(path.parent.name == PRESETS.name for path in paths):
        if not preset.is_file():
            raise CompetitionError(f"{preset}: is no file here; name another preset behind the config")
        paths = [*paths, preset]
    config = load_config(paths, overrides)
    overrides = overrides if config.trainer.get("max_time") else [*overrides, MAX_TIME]
    return paths, overrides, config


def _code(paths: list[Path], config: Config) -> dict[str, Path]:
    """Return what `competition run` needs there, by its name there; neither data nor results nor anything hidden."""
    package = {path.relative_to(PACKAGE): path for path in PACKAGE.rglob("*") if path.is_file()}
    files = {
        f"{PACKAGE.name}/{name.as_posix()}": path
        for name, path in package.items()
        if name.parts[0] != LEFT_OUT and not any(part == "__pycache__" or part.startswith(".") for part in name.parts)
    }
    configs = [*Path("configs").rglob("*.yaml"), *(one for path in paths for one in with_bases(path))]
    files |= {_inside(path): path for path in [Path("pyproject.toml"), *configs]}
    if folds_path(config).is_file() and config.data.folds is None:
        files[folds_path(config).name] = folds_path(config)
    return files


def _named(config: Config) -> dict[str, Path]:
    """Return the files that a config names and that lie here: a metric, groups, pseudo-labels, folds, weights."""
    pretrained = getattr(config.model, "pretrained", None)
    named: dict[str, Path | None] = {
        "data.folds": config.data.folds,
        "data.pseudo": config.data.pseudo,
        "data.weights_csv": config.data.weights_csv,
        "data.group_file": config.data.group_file.file if config.data.group_file else None,
        "model.pretrained": Path(pretrained) if isinstance(pretrained, str) else None,
    }
    for number, data in enumerate(ways_of_looking(config.data)):
        where = f"data.extra[{number - 1}]" if number else "data"
        named[f"{where}.crop"] = crops_file(data)
        if (index := maps_index(data)) is not None and index.is_file():
            raise CompetitionError(
                f"{where}.maps: {index.parent}: its pictures cannot travel in a notebook; make the folder of that run "
                "a data set on Kaggle, add it by --dataset OWNER/NAME and name it as it lies there"
            )
    if config.data.pseudo is not None:
        named |= {f"data.pseudo: {path.name}": path for path in pseudo_files(config.data.pseudo)[1:]}
    named |= {file: Path(file) for file in _users_code(config.model_dump(mode="json"))}
    # A file that is not here is one of the notebook's inputs, or of the competition's.
    return {_inside(path, f"{key}: "): path for key, path in named.items() if path is not None and path.is_file()}


def _users_code(values: Any) -> Iterator[str]:
    """Yield each FILE.py, or that of FILE.py:NAME, wherever a config has one: as a loss, an optimizer, a step."""
    if isinstance(values, dict):
        values = [*values, *values.values()]
    if isinstance(values, list):
        for one in values:
            yield from _users_code(one)
    elif isinstance(values, str) and (found := re.fullmatch(r"(.+\.py)(?::\w+)?", values)):
        yield found[1]


def _inside(path: Path, what: str = "") -> str:
    """Return a file's name in this folder, which it has there, too."""
    if not path.resolve().is_relative_to(Path.cwd()):
        raise CompetitionError(
            f"{what}{path}: lies outside of this folder, so that Kaggle cannot have it; copy it here"
        )
    return path.resolve().relative_to(Path.cwd()).as_posix()


def _notebook(files: dict[str, Path], job: Job) -> dict[str, Any]:
    """Return a notebook whose two cells hold the code and start it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=COMPRESSION) as archive:
        for name, path in sorted(files.items()):
            archive.add(path, name, filter=_as_anybody)
        about = json.dumps(asdict(job), indent=1).encode()
        entry = tarfile.TarInfo(JOB)
        entry.size = len(about)
        archive.addfile(entry, io.BytesIO(about))
    text = base64.b64encode(packed.getvalue()).decode()
    if len(text) > MOST_BYTES:
        largest = max(files.values(), key=lambda path: path.stat().st_size)
        raise CompetitionError(
            f"{largest}: {largest.stat().st_size / 1e6:.1f} MB, too large to travel in a notebook; make it a data set "
            "on Kaggle, add it by --dataset OWNER/NAME and name its file as it lies there (folds are made there)"
        )
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
        for source in (f'ARCHIVE = "{text}"', CELL)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}


def _as_anybody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who the files belong to."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _send(service: KaggleService, metadata: dict[str, Any], notebook: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / KERNEL).write_text(json.dumps(metadata), encoding="utf-8")
        (Path(folder) / CODE_FILE).write_text(json.dumps(notebook), encoding="utf-8")
        return service.push_notebook(metadata["id"], Path(folder))

"""One submission of several runs, each of which answers some of its rows, as of studies and of images. No torch.

A run answers the rows that its `data.sample_submission` names, as `sample_submission.csv where id=*_study`; joined they
must be those of the whole table. The runs may be of two projects, as of classes and of boxes.
"""

from collections.abc import Sequence
from pathlib import Path

from competition.config.loading import task_names
from competition.config.settings import Config
from competition.files.csv_file import UNNAMED, read_csv, read_header
from competition.files.joined_tables import table_files
from competition.runs.folder import POSTPROCESS, SUBMISSION, TEST, Run, read_kept_config
from competition.submission.submit import make_submission
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.paths import here
from competition.tasks.contract import Task

JOINED = "joined.csv"
Rows = dict[tuple[str, ...], list[tuple[str, ...]]]  # by the cells that tell which row is asked for


def join_with(run: Run, others: Sequence[str]) -> Path:
    """Write joined.csv of a run's submission.csv and those of others; return it.

    Other runs of this project are submitted anew; of those elsewhere submission.csv is taken as it is.
    """
    files = [run.folder / SUBMISSION, *map(_submission_of, others)]
    return join_submissions(files, run.config, run.folder / JOINED)


def join_submissions(files: Sequence[Path], config: Config, path: Path) -> Path:
    """Write the rows of several submissions in the order of the whole sample submission.

    Raises CompetitionError where a row is in none of them, in two, or is not asked for.
    """
    sample, *_ = table_files(config.sample_submission)
    header = read_header(sample)
    names = [name.strip() for name in header]
    keys = Task(config.task).submission.id_columns(config)
    asked = list(dict.fromkeys(read_csv(sample, keys).itertuples(index=False, name=None)))
    known, found = set(asked), dict[tuple[str, ...], tuple[Path, list[tuple[str, ...]]]]()
    for file in files:
        for key, rows in _rows_of(file, names, keys).items():
            if key in found:
                raise CompetitionError(
                    f"{file}: has the row {_told(key)}, which {found[key][0]} has, too; expected one"
                )
            if key not in known:
                raise CompetitionError(f"{file}: has the row {_told(key)}, for which {sample} does not ask")
            found[key] = (file, rows)
    if absent := [key for key in asked if key not in found]:
        raise CompetitionError(
            f"{sample}: {len(absent)} of {len(asked)} rows, as {_told(absent[0])}, are in none of "
            f"{', '.join(map(str, files))}; name the run that answers them by --join"
        )
    columns = ["" if UNNAMED.fullmatch(name) else name for name in header]
    write_csv(path, columns, (row for key in asked for row in found[key][1]))
    return path


def _rows_of(file: Path, names: Sequence[str], keys: Sequence[str]) -> Rows:
    frame = read_csv(file, names)
    if extra := [name for name in read_header(file) if name.strip() not in names]:
        raise CompetitionError(f"{file}: found column {extra[0]!r}; expected {','.join(names)}")
    places, rows = [names.index(key) for key in keys], Rows()
    for row in frame.itertuples(index=False, name=None):
        rows.setdefault(tuple(row[place] for place in places), []).append(row)
    return rows


def _told(key: tuple[str, ...]) -> str:
    return ",".join(key)[:60]


def folder_of(name: str) -> Path:
    """Return the folder of a run to be joined: of this project by its name, of another by its path."""
    candidates = [here().outputs / name, Path(name)]
    if (folder := next((one for one in candidates if one.is_dir()), None)) is None:
        raise CompetitionError(f"--join {name}: no such run here, nor a folder of one of another project")
    return folder


def is_of_this_project(folder: Path) -> bool:
    """Return whether a run lies here and is of a task that is known here: its parts can be made anew."""
    configs = sorted(folder.glob("fold*/config.yaml"))
    is_here = folder.resolve().parent == here().outputs.resolve()
    return is_here and bool(configs) and read_kept_config(configs[0].parent)["task"] in task_names()


def _submission_of(name: str) -> Path:
    folder = folder_of(name)
    if is_of_this_project(folder):
        return make_submission(Run.open(str(folder))).path
    file = folder / SUBMISSION
    if not file.is_file():
        raise CompetitionError(f"{file}: no such file; make it there with `competition submit {folder.name}`")
    made = file.stat().st_mtime
    if newer := [one for one in (folder / TEST, folder / POSTPROCESS) if one.is_file() and one.stat().st_mtime > made]:
        raise CompetitionError(
            f"{file}: is older than {newer[0]}; make it anew with `competition submit {folder.name}`"
        )
    return file

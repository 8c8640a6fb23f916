"""`competition fetch RUN`: what a training on Kaggle left, into outputs/, where it goes on or is handed in. No torch.

Files come to a folder of their own first, and are compared with the checksums that the session made. Then a training
takes its place in outputs/ as a whole, by renaming; one that is further here than there stays.
"""

import shutil
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from competition.comparison.update_ledger import record
from competition.config.loading import dump_yaml, load_config
from competition.kaggle.api import UNDER_WAY, KaggleService, competition_name
from competition.kaggle.session import FOLDS, LISTING, Listing, damaged, read_listing, restore
from competition.kaggle.training import newest_output, sessions, training_name
from competition.runs.folder import CONFIG, is_finished, read_kept_config, read_metrics, refuse_changed_config
from competition.runs.ledger import UNSCORED, Line, change_ledger, ledger_path, read_ledger
from competition.support.atomic_files import marked, replacing
from competition.support.errors import CompetitionError
from competition.support.locks import holding
from competition.support.paths import here
from competition.support.progress import progress

BESIDE = (LISTING, FOLDS, "outputs/runs.csv")  # what is wanted besides the run's own files
BEFORE = ".before"
OF_THERE = ("started", "git_commit", "git_dirty", "data", "folds_csv", "device", "versions")  # of a line of the ledger


def fetch(run: str, competition: str | None = None) -> list[str]:
    """Bring the newest session's files of a run into outputs/; return lines that say how far it is.

    Started again after it broke off, it goes on.
    """
    service = KaggleService()
    series = training_name(service, competition_name(competition), run)
    found = sessions(service, series)
    if not found:
        raise CompetitionError(
            f"Kaggle: there is no notebook {series}-1; start one with `competition push --train CONFIG`"
        )
    newest = next(iter(found))
    if found[newest] in UNDER_WAY:
        raise CompetitionError(f"Kaggle: {newest} is {found[newest]}; its files can be fetched when it has ended")
    output = newest_output(service, found, run)
    if output is None:
        raise CompetitionError(f"Kaggle: {newest} left nothing of {run}; see https://www.kaggle.com/code/{newest}")
    notebook, files = output
    working = _download(service, notebook, run, files)
    listing = read_listing(working)
    lines = _take_in(working, run, listing)
    _take_line(working, run, listing)
    if any(is_finished(path.parent) for path in (here().outputs / run).glob(f"fold*/{CONFIG}")):
        record(here().outputs / run)
    shutil.rmtree(working)
    return [f"{notebook}: {found[notebook]}", *lines, _way_on(run, listing)]


def _download(service: KaggleService, notebook: str, run: str, files: dict[str, str]) -> Path:
    """Return the folder with a session's files of a run; those that a start before this one brought are not asked for
    again."""
    working = here().outputs / f".{notebook.rpartition('/')[2]}.fetch"
    wanted = sorted(
        name
        for name in files
        if name.startswith(f"outputs/{run}/") or any(fnmatchcase(name, pattern) for pattern in BESIDE)
    )
    if LISTING in wanted:  # anew: notebooks may have been deleted, and another one made of this name
        service.fetch_file(files[LISTING], working / LISTING)
    listing = read_listing(working)
    expected = {name: one for name, one in listing.files.items() if name in wanted} if listing else {}
    for name in progress(wanted, f"fetching {notebook}"):
        if not (working / name).resolve().is_relative_to(working.resolve()):
            raise CompetitionError(f"Kaggle: {notebook} has a file {name!r}, which lies outside of its folder")
        is_here = (working / name).is_file() and not damaged(
            working, {name: expected[name]} if name in expected else {}
        )
        if not is_here:
            service.fetch_file(files[name], working / name)
        if name in expected and damaged(working, {name: expected[name]}):
            raise CompetitionError(f"Kaggle: {name} of {notebook} is not as it was written there; fetch it again")
    restore(working)
    return working


def _take_in(working: Path, run: str, listing: Listing | None) -> list[str]:
    """Move trainings, and what was made of them, to where they belong; what is further here than there stays."""
    came, target = working / "outputs" / run, here().outputs / run
    target.mkdir(parents=True, exist_ok=True)
    for path in came.glob(f".*{BEFORE}"):  # a start before this one was killed in between
        shutil.rmtree(path)
    trainings = sorted(path.parent for path in came.glob(f"fold*/{CONFIG}"))
    if listing is not None:
        for training in trainings:
            _as_here(training, listing.job.data_dir)
    lines, stays = [], False
    for training in trainings:
        here_too = target / training.name
        refuse_changed_config(here_too, load_config([training / CONFIG], [f"name={run}"]))
        if _progress(here_too) > _progress(training):
            lines.append(f"{here_too}: is further here than on Kaggle, and stays")
            stays = True
            continue
        lines.append(f"{here_too}: {_describe(training)}")
        _exchange(training, here_too)
    if not stays:
        for path in [path for path in came.iterdir() if path.name not in {one.name for one in trainings}]:
            _exchange(path, target / path.name)
    for folds in sorted(working.glob(FOLDS)) if trainings else ():  # without a training they are of no use
        lines += _take_folds(folds, target)
    return lines or [f"{target}: no training had begun"]


def _as_here(training: Path, data_dir: str) -> None:
    """Name the data's folder in a kept config as the machine that pushed had it: there it was the notebook's input."""
    values = read_kept_config(training)
    if values["data"].get("dir") == "data" != data_dir:
        values["data"]["dir"] = data_dir
        with replacing(training / CONFIG) as temporary:
            temporary.write_text(marked(dump_yaml(values)), encoding="utf-8")


def _progress(training: Path) -> tuple[bool, int]:
    return is_finished(training), len(read_metrics(training))


def _describe(training: Path) -> str:
    done, epochs = _progress(training)
    return "trained to its end" if done else f"{epochs} epochs of its training"


def _exchange(new: Path, old: Path) -> None:
    """Put a file or folder in the place of another, which is never met half."""
    if not old.is_dir():
        new.replace(old)
        return
    aside = new.with_name(f".{new.name}{BEFORE}")
    with holding(old, "training"):
        old.replace(aside)
        new.replace(old)
    shutil.rmtree(aside)


def _take_folds(folds: Path, target: Path) -> list[str]:
    """Keep the folds that a run was trained with: with it, and beside train.csv where that is here and has none."""
    data = Path(read_kept_config(next(target.glob(f"fold*/{CONFIG}")).parent)["data"]["dir"])
    beside = data / folds.name
    if data.is_dir() and not beside.exists():
        shutil.copyfile(folds, target / folds.name)
        folds.replace(beside)
        return [f"{beside}: made on Kaggle"]
    folds.replace(target / folds.name)
    if beside.is_file() and sorted(beside.read_text().split()) != sorted((target / folds.name).read_text().split()):
        return [f"warning: {beside} has other folds than the run; its own are in {target / folds.name}"]
    return [] if beside.is_file() else [f"{target / folds.name}: copy it to {beside} before it is trained here"]


def _take_line(working: Path, run: str, listing: Listing | None) -> None:
    """Bring the run's line of the ledger home; columns of the user's own stay."""
    there = read_ledger(working / "outputs" / "runs.csv").get(run)
    if there is None:
        return
    job = listing.job if listing else None
    known = {name: getattr(there, name) for name in OF_THERE}
    if job is not None:
        known |= {"git_commit": job.git_commit, "git_dirty": job.git_dirty}

    def change(lines: dict[str, Line]) -> None:
        line = lines.get(
            run, replace(there, others={}, thresholds="" if there.thresholds in UNSCORED else there.thresholds)
        )
        lines[run] = replace(line, **known)

    change_ledger(ledger_path(), change)


def _way_on(run: str, listing: Listing | None) -> str:
    if listing is None:
        return "Kaggle ended it before it had stopped by itself; push it again, or go on here, with the same config"
    line = " ".join(listing.job.words)
    if listing.status == 0:
        return f"finished; hand it in with `competition submit {run} --kaggle`, or bundle it"
    how = "its time was over" if listing.status == 3 else f"it failed (exit {listing.status})"
    return f"{how}; push it again, and it goes on: competition push --train {line}"

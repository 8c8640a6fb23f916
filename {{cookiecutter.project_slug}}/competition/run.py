"""`competition run CONFIG...`: check, folds, train, tune, predict, submit, bundle, report; what is done is skipped."""

import time
from pathlib import Path

from competition.check import check
from competition.config import load_config
from competition.errors import CompetitionError
from competition.files import is_up_to_date
from competition.folds import folds_path, make_folds
from competition.manifest import BUNDLE, MANIFEST, WHEELS, overrides_of
from competition.out_of_fold import OutOfFold, folds_of_files
from competition.predictions import Predictions
from competition.processes import Job, run_jobs
from competition.record import record
from competition.report import REPORT, is_reported, write_report
from competition.runs import CONFIG, POSTPROCESS, TEST, Run, is_finished, refuse_changed_config, remember_what_follows
from competition.score import describe_scores, score_constant
from competition.settings import Config
from competition.submit import Submission, describe_submission, make_submission
from competition.task import Task
from competition.time_limit import time_left
from competition.tune import describe_tuning, honest_scores, is_tuned, tune
from competition.wheels import missing_packages


def run(paths: list[Path], overrides: list[str], *, parallel: int = 1) -> None:
    """Go all the way from train.csv to submission.csv, saying at the end where everything is and what it scored.

    `parallel` trainings, of folds and seeds, go on at the same time.
    """
    started = time.perf_counter()
    config = load_config(paths, overrides)
    _say("check", f"reading {config.data.dir}")
    print("\n".join(check(config)), flush=True)
    if folds_path(config).is_file():
        _say("folds", f"{folds_path(config)} is there and is kept")
    else:
        _say("folds", f"splitting into {config.data.num_folds}")
        print("\n".join(make_folds(config)), flush=True)
    _train(config, paths, overrides, parallel, started)
    opened = Run.open(config.name)
    if not _is_as_asked(opened, opened.out_of_fold_files()):
        _predict(opened)  # out-of-fold images, too: thresholds are for what is handed in
    _tune(opened)
    opened = Run.open(config.name)
    _predict(opened)
    _say("submit", "writing and checking the submission")
    submission = make_submission(opened)
    record(opened.folder, [])
    _bundle(opened)
    _say("report", f"{opened.folder / REPORT} is up to date" if is_reported(opened) else f"{write_report(opened)}")
    _report(opened, submission, time.perf_counter() - started)


def trainings(config: Config) -> list[list[str]]:
    """Return for each training of a run the words that single it out: a fold and, of several seeds, a seed."""
    folds = config.folds or range(config.data.num_folds)
    given = [f"{key}={list(values)}" for key, values in (("folds", config.folds), ("seeds", config.seeds)) if values]
    seeds = config.seeds or [config.seed]
    return [[f"fold={fold}", f"seed={seed}", *given] for seed in seeds for fold in folds]


def _train(config: Config, paths: list[Path], overrides: list[str], parallel: int, started: float) -> None:
    """Train in processes of their own: several trainings in one process are fragile on several GPUs.

    `trainer.max_time` is for all of them together, from when the run `started`.
    """
    max_time = config.trainer.get("max_time")

    def limit() -> list[str]:
        return [] if max_time is None else [f"trainer.max_time={time_left(max_time, time.perf_counter() - started)}"]

    jobs = []
    for words in trainings(config):
        one = load_config(paths, [*overrides, *words])
        refuse_changed_config(one.fold_folder, one)
        if is_finished(one.fold_folder):
            _say("train", f"{one.fold_folder.name} is done already, in {one.fold_folder}")
            continue
        command = ["train", "--resume", *map(str, paths), *overrides, *words]
        jobs.append(Job(one.fold_folder.name, command, one.fold_folder / "train.log", limit))
    run_jobs(jobs, parallel, lambda job: _say("train", job.name))
    remember_what_follows(config.run_folder, config)


def _tune(opened: Run) -> None:
    if not opened.out_of_fold_files():
        return  # trained on all images: there is nothing to tune on
    if is_tuned(opened):
        _say("tune", f"{opened.folder}/cv.csv is up to date")
        return
    _say("tune", "looking for thresholds on out-of-fold predictions")
    print("\n".join(describe_tuning(tune(opened))), flush=True)


def _predict(opened: Run) -> None:
    test, finished = opened.folder / TEST, opened.finished()
    sources = [opened.config.sample_submission, *(path for folder in finished for path in folder.glob("*.safetensors"))]
    if is_up_to_date(test, sources) and _is_as_asked(opened, [test, *opened.out_of_fold_files()]):
        _say("predict", f"{test} is up to date")
        return
    _say("predict", f"{len(finished)} trainings on the test images")
    run_jobs([Job("predict", ["predict", str(opened.folder)], opened.folder / "predict.log")], 1)


def _bundle(opened: Run) -> None:
    """Bundle it for an offline notebook; the submission is written, whatever becomes of this."""
    if is_bundled(opened):
        _say("bundle", f"{opened.folder / BUNDLE} is up to date")
        return
    _say("bundle", "all that an offline notebook needs")
    try:
        run_jobs([Job("bundle", ["bundle", str(opened.folder)], opened.folder / "bundle.log")])
    except CompetitionError as error:
        print(f"warning: {error}", flush=True)


def is_bundled(opened: Run) -> bool:
    """Return whether the run's bundle is newer than all that it was made from, this package included, and is of the
    run's own config."""
    bundle, package = opened.folder / BUNDLE, Path(__file__).parent
    if overrides_of(bundle) != []:
        return False
    if (bundle / POSTPROCESS).is_file() != (opened.folder / POSTPROCESS).is_file():
        return False
    if (
        missing_packages(package.parent / "pyproject.toml", opened.config.inference.python)
        and not (bundle / WHEELS).is_dir()
    ):
        return False  # there was no network
    sources = [opened.folder / TEST, opened.folder / POSTPROCESS, *opened.folder.glob(f"fold*/{CONFIG}")]
    sources += [*opened.folder.glob("fold*/*.safetensors"), *package.rglob("*.py"), *package.rglob("*.yaml")]
    return is_up_to_date(bundle / MANIFEST, sources)


def _is_as_asked(opened: Run, files: list[Path]) -> bool:
    return all(Predictions(path).is_as_asked(opened.config) for path in files)


def _report(opened: Run, submission: Submission, seconds: float) -> None:
    config, files = opened.config, opened.out_of_fold_files()
    _say("done", f"in {seconds:.0f} s")
    if files:
        table = Task(config.task).table.read_table(config)
        blind_name, blind = score_constant(config, table, OutOfFold(config, table, folds_of_files(files)))
        how, scores = honest_scores(opened)
        print(f"out of fold:  {describe_scores(scores)}  ({how})")
        print(f"  {blind_name}: {describe_scores(blind)}")
    print(f"weights, metrics.csv and out-of-fold predictions:  {opened.folder}/fold*/")
    print("\n".join(describe_submission(submission)))


def _say(stage: str, text: str) -> None:
    print(f"\n== {stage}: {text}", flush=True)

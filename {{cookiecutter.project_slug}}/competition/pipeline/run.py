"""`competition run CONFIG...`: check, folds, train, tune, predict, submit, bundle, report; what is done is skipped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from competition.checking.check import WritePage, check
from competition.comparison.update_ledger import record
from competition.config.loading import load_config
from competition.config.settings import Config
from competition.data.folds import folds_path, make_folds
from competition.prediction.stored import Predictions
from competition.runs.batch_size import settled
from competition.runs.folder import (
    BUNDLE,
    TEST,
    Run,
    is_finished,
    more_epochs,
    refuse_changed_config,
    refuse_start,
    remember_what_follows,
)
from competition.runs.provenance import test_images_fingerprint
from competition.runs.thresholds import describe_edit
from competition.scoring.out_of_fold import OutOfFold, describe_scores, folds_of_files, score_constant
from competition.scoring.tune import describe_choice, describe_tuning, honest_scores, is_tuned, tune
from competition.submission.submit import Submission, describe_submission, make_submission
from competition.support.errors import CompetitionError
from competition.support.freshness import is_up_to_date
from competition.support.machine import Share, share_machine
from competition.support.optional_rooms import has_room
from competition.support.processes import Job, run_jobs
from competition.support.time_limit import time_left
from competition.tasks.contract import Task

# Given a config, its trainings and what is to follow them, lets a scheduler do it and says how.
HandOver = Callable[[Config, list[Job], Job], list[str]]


def run(
    paths: list[Path], overrides: list[str], *, parallel: int | None = None, hand_over: HandOver | None = None
) -> None:
    """Go all the way from train.csv to submission.csv, saying at the end where everything is and what it scored.

    `parallel` trainings, of folds and seeds, go on at the same time; None: as many as fit on the GPUs here. Or they are
    handed over, with what is to follow.
    """
    started = time.perf_counter()
    config = load_config(paths, overrides)
    if hand_over is not None:
        _check_and_fold(config)
        last = Job("run", ["run", *map(str, paths), *overrides], config.run_folder / "run.log")
        print("\n".join(hand_over(config, _trainings_to_do(config, paths, overrides), last)))
        return
    share = share_machine(config.trainer, parallel, len(trainings(config)))
    if any(Path("/dev").glob("nvidia[0-9]*")):  # importing torch takes seconds
        from competition.training.devices import refuse_gpus_without_kernels

        refuse_gpus_without_kernels(config)
    _check_and_fold(config)
    _train(config, paths, overrides, share, started)
    opened = Run.open(config.name)
    if not _is_as_asked(opened, opened.out_of_fold_files()):
        _predict(opened)  # out-of-fold images, too: thresholds are for what is handed in
    _tune(opened)
    opened = Run.open(config.name)
    _predict(opened)
    _say("submit", "writing and checking the submission")
    submission = make_submission(opened)
    record(opened.folder, [])
    if has_room("bundle"):
        _bundle(opened)
    if has_room("pages"):
        _write_page(opened)
    _report(opened, submission, time.perf_counter() - started)


class Rounds(NamedTuple):
    """How often a run is trained once more with pseudo-labels of the one before, and which."""

    number: int = 0
    confidence: float = 0.9
    quota: int | None = None


def run_rounds(paths: list[Path], overrides: list[str], rounds: Rounds, *, parallel: int | None = None) -> None:
    """Run a config, then its rounds NAME_round1, ..., each with pseudo-labels of the run before: by `pseudo`, a fold by
    its own networks, so that no round has seen a label that it is scored on."""
    run(paths, overrides, parallel=parallel)
    base = load_config(paths, overrides)
    before = base.run_folder
    options = [f"--confidence={rounds.confidence:g}", *([f"--quota={rounds.quota}"] if rounds.quota else [])]
    for number in range(1, rounds.number + 1):
        name = f"{base.name}_round{number}"
        _say("pseudo", f"labels of {before.name} for {name}")
        run_jobs([Job("pseudo", ["pseudo", str(before), *options], before / "pseudo.log")])
        more = [f"name={name}", f"data.pseudo={before / 'pseudo.csv'}"]
        run(paths, [*overrides, *more], parallel=parallel)
        before = before.with_name(name)


def _check_and_fold(config: Config) -> None:
    _say("check", f"reading {config.data.dir}")
    print("\n".join(check(config, page_writer())), flush=True)
    if folds_path(config).is_file():
        _say("folds", f"{folds_path(config)} is there and is kept")
    else:
        _say("folds", f"splitting into {config.data.num_folds}, in {folds_path(config)}")
        print("\n".join(make_folds(config)), flush=True)


def trainings(config: Config) -> list[list[str]]:
    """Return for each training of a run the words that single it out: a fold and, of several seeds, a seed."""
    folds = config.folds or range(config.data.num_folds)
    given = [f"{key}={list(values)}" for key, values in (("folds", config.folds), ("seeds", config.seeds)) if values]
    seeds = config.seeds or [config.seed]
    return [[f"fold={fold}", f"seed={seed}", *given] for seed in seeds for fold in folds]


def _train(config: Config, paths: list[Path], overrides: list[str], share: Share, started: float) -> None:
    """Train in processes of their own: several trainings in one process are fragile on several GPUs.

    `trainer.max_time` is for all of them together, from when the run `started`.
    """
    hold_cache(config)
    jobs = _trainings_to_do(config, paths, overrides, time_limit(config, started))
    share = share.among(len(jobs))
    if share.parallel > 1:
        _say("train", str(share))
    run_jobs(jobs, lambda job: _say("train", job.name), share)
    remember_what_follows(config.run_folder, config)


def _trainings_to_do(
    config: Config, paths: list[Path], overrides: list[str], late_words: Callable[[], list[str]] = list
) -> list[Job]:
    """Return a job for each training of a run that is not done; raise CompetitionError where one cannot begin."""
    jobs = []
    for words in trainings(config):
        one = settled(load_config(paths, [*overrides, *words]))
        refuse_changed_config(one.fold_folder, one)
        more = more_epochs(one.fold_folder, one)
        if more is not None:
            refuse_start(one, resume=True)
        if is_finished(one.fold_folder) and more is None:
            _say("train", f"{one.fold_folder.name} is done already, in {one.fold_folder}")
            continue
        command = ["train", "--resume", *map(str, paths), *overrides, *words]
        jobs.append(Job(one.fold_folder.name, command, one.fold_folder / "train.log", late_words))
    return jobs


def hold_cache(config: Config) -> None:
    """Keep images that are in shared memory from one training to the next, for as long as this process lives."""
    if config.data.cache == "memory":
        from competition.data.cache import hold_shared_memory

        hold_shared_memory()


def time_limit(config: Config, started: float) -> Callable[[], list[str]]:
    """Return what tells a training, when it starts, how much of `trainer.max_time` is left for it and those to come."""
    limit = config.trainer.get("max_time")
    return lambda: [] if limit is None else [f"trainer.max_time={time_left(limit, time.perf_counter() - started)}"]


def _tune(opened: Run) -> None:
    if not opened.out_of_fold_files():
        return  # trained on all images: there is nothing to tune on
    if edited := describe_edit(opened):
        _say("tune", *edited)
        return
    if is_tuned(opened):
        _say("tune", f"{opened.folder}/cv.csv is up to date")
        return
    _say("tune", "looking for thresholds on out-of-fold predictions")
    print("\n".join(describe_tuning(tune(opened))), flush=True)


def _predict(opened: Run) -> None:
    test, finished = opened.folder / TEST, opened.finished()
    images = test_images_fingerprint(opened.config)
    if is_up_to_date(test, opened.test_sources(), images) and _is_as_asked(opened, [test, *opened.out_of_fold_files()]):
        _say("predict", f"{test} is up to date")
        return
    _say("predict", f"{len(finished)} trainings on the test images")
    run_jobs([Job("predict", ["predict", str(opened.folder)], opened.folder / "predict.log")])


def _bundle(opened: Run) -> None:
    """Bundle it for an offline notebook; the submission is written, whatever becomes of this."""
    from competition.bundle.build import is_bundled, is_joined

    if is_joined(opened):
        _say("bundle", f"{opened.folder / BUNDLE} has another run's rows, too, and is kept; make it again with --join")
        return
    if is_bundled(opened):
        _say("bundle", f"{opened.folder / BUNDLE} is up to date")
        return
    _say("bundle", "all that an offline notebook needs")
    try:
        run_jobs([Job("bundle", ["bundle", str(opened.folder)], opened.folder / "bundle.log")])
    except CompetitionError as error:
        print(f"warning: {error}", flush=True)


def page_writer() -> WritePage | None:
    """Return what writes check.html; none in a repo without the room of pages."""
    if not has_room("pages"):
        return None
    from competition.pages.check_page import write_check_page

    return write_check_page


def _write_page(opened: Run) -> None:
    from competition.pages.report import REPORT, is_reported, write_report

    _say("report", f"{opened.folder / REPORT} is up to date" if is_reported(opened) else f"{write_report(opened)}")


def _is_as_asked(opened: Run, files: list[Path]) -> bool:
    return all(Predictions(path).is_as_asked(opened.config) for path in files)


def _report(opened: Run, submission: Submission, seconds: float) -> None:
    config, files = opened.config, opened.out_of_fold_files()
    _say("done", f"in {seconds:.0f} s")
    if files:
        table = Task(config.task).table.read_table(config)
        blind_name, blind = score_constant(config, table, OutOfFold(config, table, folds_of_files(files)))
        print("\n  ".join([_in_words(opened), *describe_choice(opened)]))
        print(f"  {blind_name}: {describe_scores(blind)}")
    print(f"weights, metrics.csv and out-of-fold predictions:  {opened.folder}/fold*/")
    print("\n".join(describe_submission(submission)))


def _in_words(opened: Run) -> str:
    """Say what is known of how well the run does by the thresholds that it has."""
    if edited := describe_edit(opened):
        return f"out of fold:  not scored: {edited[0]}"
    how, scores = honest_scores(opened)
    return f"out of fold:  {describe_scores(scores)}  ({how})"


def _say(stage: str, text: str) -> None:
    print(f"\n== {stage}: {text}", flush=True)

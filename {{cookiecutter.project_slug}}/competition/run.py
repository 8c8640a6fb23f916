"""`competition run CONFIG...`: check, folds, train every fold, predict, submit; what is done already is skipped."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from competition.check import check
from competition.config import load_config
from competition.errors import STOP_SIGNALS, CompetitionError, StoppedError
from competition.folds import folds_path, make_folds
from competition.runs import OOF, TEST, Run, refuse_changed_config
from competition.score import describe_scores, score_constant, score_predictions
from competition.submit import Submission, describe_submission, make_submission
from competition.task import Task

PASSED_ON = [number for number in STOP_SIGNALS if number != signal.SIGINT]


def run(paths: list[Path], overrides: list[str]) -> None:
    """Go all the way from train.csv to submission.csv, saying at the end where everything is and what it scored."""
    started = time.perf_counter()
    config = load_config(paths, overrides)
    _say("check", f"reading {config.data.dir}")
    print("\n".join(check(config)), flush=True)
    if folds_path(config).is_file():
        _say("folds", f"{folds_path(config)} is there and is kept")
    else:
        _say("folds", f"splitting into {config.data.num_folds}")
        print("\n".join(make_folds(config)), flush=True)
    for fold in range(config.data.num_folds):
        _train_fold(paths, overrides, fold)
    opened = Run.open(config.name)
    _predict(opened)
    _say("submit", "writing and checking the submission")
    _report(opened, make_submission(opened), time.perf_counter() - started)


def _train_fold(paths: list[Path], overrides: list[str], fold: int) -> None:
    """Train one fold in a process of its own: several trainings in one process are fragile on several GPUs."""
    config = load_config(paths, [*overrides, f"fold={fold}"])
    folder = config.fold_folder
    refuse_changed_config(folder, config)
    if (folder / OOF).is_file():
        _say("train", f"fold {fold} is done already, in {folder}")
        return
    _say("train", f"fold {fold}")
    words = [*map(str, paths), *overrides, f"fold={fold}"]
    _start("train", "--resume", *words)


def _predict(opened: Run) -> None:
    test = opened.folder / TEST
    sources = [*(folder / OOF for folder in opened.finished_folds()), opened.config.sample_submission]
    if test.is_file() and all(test.stat().st_mtime >= source.stat().st_mtime for source in sources):
        _say("predict", f"{test} is up to date")
        return
    _say("predict", f"{len(opened.finished_folds())} folds on the test images")
    _start("predict", str(opened.folder))


def _start(*words: str) -> None:
    """Run a verb as a process; its own message has said why if it fails.

    Raises StoppedError with its exit status if it stopped in good order, to go on later.
    """
    process = subprocess.Popen([sys.executable, "-m", "competition", *words])
    # Ctrl-C reaches the process by itself and must not end this one before it has saved; the rest is passed on.
    before = {number: signal.signal(number, lambda n, _: process.send_signal(n)) for number in PASSED_ON}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status == StoppedError.TIME_LIMIT or status > 128:
        raise StoppedError("stopped; the same line goes on where it was", status)
    if status:
        raise CompetitionError(f"`competition {words[0]}` failed (exit {status}); see above")


def _report(opened: Run, submission: Submission, seconds: float) -> None:
    config = opened.config
    table = Task(config.task).table.read_table(config)
    files = [folder / OOF for folder in opened.finished_folds()]
    blind_name, blind = score_constant(config, table, files)
    _say("done", f"in {seconds:.0f} s")
    print(f"out of fold:  {describe_scores(score_predictions(config, table, files))}")
    print(f"  {blind_name}: {describe_scores(blind)}")
    print(f"weights, metrics.csv and out-of-fold predictions:  {opened.folder}/fold*/")
    print("\n".join(describe_submission(submission)))


def _say(stage: str, text: str) -> None:
    print(f"\n== {stage}: {text}", flush=True)

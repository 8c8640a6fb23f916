"""`competition sweep CONFIG... KEY=RANGE...`: trials by Optuna, each a run of its own. No torch.

Trainings are processes, and know nothing of all this: their metrics.csv is watched, and one that is hopeless is asked
to stop as a scheduler would.
"""

import json
import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from competition.checking.check import refuse_missing_data
from competition.comparison.update_ledger import kept_epoch
from competition.config.loading import config_differences, dump_yaml, load_config, read_values, read_yaml
from competition.config.settings import Config
from competition.data.folds import folds_path, make_folds
from competition.pipeline.run import hold_cache, time_limit, trainings
from competition.runs.folder import AFTER_TRAINING, ELSEWHERE, SWEEPS, is_among, is_finished
from competition.scoring.out_of_fold import lower_is_better
from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError, StoppedError
from competition.support.machine import Share, share_machine
from competition.support.optional_rooms import has_room
from competition.support.paths import here
from competition.support.processes import Crew, Job, Running, exit_status, has_stopped, last_line
from competition.sweeps.space import Range, load_with, split_ranges
from competition.sweeps.study import NAMES, STARTUP, State, Study, Trial, epochs_so_far
from competition.training.monitor import refuse_unknown_monitor

SECONDS = 0.5  # between two looks at the trainings
BETWEEN_PAGES = 30.0  # seconds: a page takes one or two
SWEEP, BEST = "sweep.yaml", "best.yaml"
SCORED_BY = ("decode", "metrics", "metric_files", "host_metric")  # trials, which must be the same for all
TRIALS_A_JOB = 5  # of a scheduler's, where nobody says how many jobs there are
MOST_FAILURES = 3  # at the start, after which something is wrong with all

# Given a config, the sweep's folder, the words of its verb and a number of jobs, lets a scheduler do it and says how.
HandOver = Callable[[Config, Path, list[str], int], list[str]]


@dataclass(frozen=True)
class Sweep:
    """What is searched: config files, words of all trials, ranges; the config is that of their first values."""

    paths: list[Path]
    words: list[str]
    ranges: list[Range]
    config: Config

    @property
    def folder(self) -> Path:
        """Where its journal and its best config are."""
        return here().outputs / SWEEPS / self.config.name

    @property
    def metric(self) -> str:
        """What is to be made better: the first of `metrics:`, of the epoch that each training keeps."""
        return self.config.metrics[0]

    def trained(self) -> list[list[str]]:
        """Return for each training of a trial the words that single it out."""
        return trainings(self.config)

    def run_name(self, number: int) -> str:
        """Return the name of a trial's run."""
        return f"{self.config.name}_t{number}"

    def words_of(self, number: int, words: Sequence[str]) -> list[str]:
        """Return the words of a trial's run."""
        return [*self.words, *words, f"name={self.run_name(number)}"]


@dataclass
class Attempt:
    """A trial that goes on here: its trainings, one after the other."""

    trial: Trial
    words: list[str]
    configs: list[Config]
    each: list[list[str]]  # words that single a training out
    running: Running | None = None
    is_hopeless: bool = False

    def next(self) -> int | None:
        """Return which training is next; None when all have ended."""
        return next((at for at, one in enumerate(self.configs) if not is_finished(one.fold_folder)), None)


def sweep(
    paths: list[Path], words: list[str], *, trials: int, parallel: int | None, hand_over: HandOver | None = None
) -> list[str]:
    """Go on with a sweep until it has so many trials; return in lines what is best, and where it is written.

    `parallel` trials go on at the same time; None: as many as fit on the GPUs here. Or jobs of a scheduler share them:
    so many, or a part of the trials, as later ones learn from those before.
    Raises CompetitionError for a user's mistake, StoppedError where it was asked to stop and can go on.
    """
    asked = _read(paths, words)
    config = asked.config
    share = share_machine(config.trainer, None if hand_over else parallel, trials)
    refuse_missing_data(config)
    refuse_unknown_monitor(config)
    if not folds_path(config).is_file():
        print("\n".join(make_folds(config)), flush=True)
    _remember(asked)
    if hand_over is not None:
        line = ["sweep", *map(str, paths), *words, f"--trials={trials}"]
        return hand_over(config, asked.folder, line, parallel or max(trials // TRIALS_A_JOB, 1))
    hold_cache(config)
    is_lower = lower_is_better(config, asked.metric)
    epochs = config.trainer.get("max_epochs")
    epochs = epochs if isinstance(epochs, int) else 1
    study = Study(asked.folder, asked.ranges, is_lower, config.seed, epochs)
    searching = Search(asked, study, trials, share)
    try:
        searching.go_on()
    finally:
        lines = write_down(asked, study)
    if searching.status is not None:
        raise StoppedError(
            f"stopped, with {len(study.ended())} of {trials} trials ended; the same line goes on where it was",
            searching.status,
        )
    return lines


def _read(paths: list[Path], words: list[str]) -> Sweep:
    ranges, fixed = split_ranges(words)
    if not ranges:
        raise CompetitionError(
            "sweep: found no range to search; expected at least one, as in 'optimizer.lr=log(1e-4, 1e-2)' or "
            "'model.encoder=[resnet18, resnet34]'"
        )
    if load_with(paths, fixed, ranges).folds is None:
        fixed.append("fold=0")
    config = load_with(paths, fixed, ranges)
    if "all" in (config.folds or ()):
        raise CompetitionError("fold=all: has no validation images to compare trials by; expected folds by number")
    return Sweep(paths, fixed, ranges, config)


def _remember(asked: Sweep) -> None:
    """Write down what is searched, and refuse another search by the same name: its trials could not be compared."""
    path = asked.folder / SWEEP
    now = {
        "ranges": {one.key: str(one) for one in asked.ranges},
        "trainings": [" ".join(words) for words in asked.trained()],
        "config": asked.config.model_dump(mode="json"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            if (left := here().outputs / asked.run_name(0)).exists():
                raise CompetitionError(
                    f"{left}: is left of an earlier sweep of this name; give this one another (name=...), or delete it"
                )
            with replacing(path) as temporary:
                temporary.write_text(dump_yaml(now), encoding="utf-8")
            return
        before = read_yaml(path)
    not_scored_by = (key for key in AFTER_TRAINING if key not in SCORED_BY)
    may_differ = (*ELSEWHERE, *not_scored_by, *(one.key for one in asked.ranges))
    changes = [
        *config_differences({**before, "config": None}, {**now, "config": None}),
        *(
            one
            for one in config_differences(before.get("config") or {}, now["config"])
            if not is_among(one, may_differ)
        ),
    ]
    if changes:
        raise CompetitionError(
            f"{path}: this sweep was begun otherwise ({'; '.join(changes[:5])}); give this one another name (name=...)"
        )


@dataclass
class Search:
    """The trials that go on here, side by side."""

    asked: Sweep
    study: Study
    most: int
    share: Share
    attempts: list[Attempt] = field(default_factory=list)
    status: int | None = None  # of the first training that was stopped, or of this process

    def __post_init__(self) -> None:
        self.crew = Crew(self.share)
        self._written = time.monotonic()
        self.limit = time_limit(self.asked.config, time.perf_counter())

    def go_on(self) -> None:
        """Begin trials and watch them until there are none left, or somebody asks to stop."""
        if self.share.parallel > 1:
            print(f"trials: {self.share}", flush=True)
        with self.crew.passing_on_signals():
            try:
                while self._begin_more() or self.attempts:
                    time.sleep(SECONDS)
                    for attempt in list(self.attempts):
                        self._watch(attempt)
                    for one in self.crew.ended():
                        self._go_on(next(attempt for attempt in self.attempts if attempt.running is one), one)
            finally:
                self._stop_all()  # after an error they would go on without anybody who watches them
        if self.crew.asked:
            self.status = 128 + self.crew.asked[0]

    def _stop_all(self) -> None:
        for one in self.crew.running:
            one.process.send_signal(signal.SIGTERM)
        for one in self.crew.running:
            one.process.wait()

    def _is_stopping(self) -> bool:
        return bool(self.crew.asked) or self.status is not None

    def _begin_more(self) -> bool:
        """Begin trials while there is room; return whether one has begun."""
        has_begun = False
        while not self._is_stopping() and len(self.attempts) < self.share.parallel:
            if (trial := self.study.next(self.most)) is None:
                break
            has_begun = True
            try:
                self.attempts.append(self._attempt(trial))
            except CompetitionError as error:  # of values that are good each by itself, but not together
                self._note(trial, State.FAIL, why=str(error).splitlines()[0])
                continue
            print(f"trial {trial.number} ({self.asked.run_name(trial.number)}): {' '.join(trial.words)}", flush=True)
            self._train(self.attempts[-1])
        return has_begun

    def _attempt(self, trial: Trial) -> Attempt:
        asked, words = self.asked, with_usual(self.asked.paths, self.asked.words_of(trial.number, trial.words))
        each = trainings(load_config(asked.paths, words))
        return Attempt(trial, words, [load_config(asked.paths, [*words, *more]) for more in each], each)

    def _train(self, attempt: Attempt) -> None:
        """Begin the next training of a trial, or end the trial with its score."""
        at = attempt.next()
        is_elsewhere = at is not None and _goes_on_elsewhere(attempt.configs[at].fold_folder)
        at = attempt.next()  # again, as that process may have ended its training since the first look
        if at is None:
            self._end(attempt)
        elif self._is_stopping():
            self._leave(attempt)
        elif not is_elsewhere:
            config = attempt.configs[at]
            command = ["train", "--resume", *map(str, self.asked.paths), *attempt.words, *attempt.each[at]]
            job = Job(f"{config.name}/{config.fold_folder.name}", command, config.fold_folder / "train.log", self.limit)
            attempt.running = self.crew.start(job, to_log=True)

    def _watch(self, attempt: Attempt) -> None:
        """Note the scores of a trial's epochs, and ask one that is hopeless to stop."""
        if attempt.running is None:  # the process that began it was killed, and its training goes on
            self._train(attempt)
        if self._is_stopping() or attempt.is_hopeless:
            return
        if attempt in self.attempts and self.study.report(attempt.trial, _scores(attempt, self.asked.metric)):
            attempt.is_hopeless = True
            if attempt.running is not None:
                attempt.running.process.send_signal(signal.SIGTERM)

    def _go_on(self, attempt: Attempt, ended: Running) -> None:
        """Go on with a trial whose training has ended, however it did."""
        status, attempt.running = exit_status(ended.process.returncode), None
        if status and attempt.is_hopeless:
            self._end(attempt, State.PRUNED)
        elif not status:
            attempt.is_hopeless = False  # it was at its end when it was asked to stop
            self._train(attempt)
        elif has_stopped(status):
            self.status = self.status or status
            for one in self.crew.running:
                one.process.send_signal(signal.SIGTERM)
            self._leave(attempt)
        else:
            self._end(attempt, State.FAIL, f"exit {status}: {last_line(ended.job.log)}; see {ended.job.log}")

    def _leave(self, attempt: Attempt) -> None:
        """Let go of a trial, with which this process or another goes on later."""
        self.attempts.remove(attempt)
        attempt.trial.lock.release()

    def _end(self, attempt: Attempt, state: State = State.COMPLETE, why: str = "") -> None:
        self.attempts.remove(attempt)
        try:
            value = _value(attempt, self.asked.metric) if state == State.COMPLETE else None
        except CompetitionError as error:
            value, why = None, str(error)
        if state == State.COMPLETE and value is None:
            state, why = State.FAIL, why or f"val/{self.asked.metric} is no number in any epoch"
        self._note(attempt.trial, state, value, why)

    def _note(self, trial: Trial, state: State, value: float | None = None, why: str = "") -> None:
        """Note how a trial has ended, and say it; raise CompetitionError where all there were have failed."""
        self.study.end(trial, state, value, why)
        said = f"{self.asked.metric} {value:.4f}" if value is not None else f"{NAMES[state]} {why}".strip()
        best = next(iter(self.study.ended()), None)
        beside = f"; the best: {best.value or 0:.4f} of trial {best.number}" if best else ""
        print(f"trial {trial.number}: {said}{beside}", flush=True)
        if time.monotonic() - self._written > BETWEEN_PAGES:
            write_down(self.asked, self.study)
            self._written = time.monotonic()
        states = [one.state for one in self.study.trials() if one.state.is_finished()]
        if len(states) >= MOST_FAILURES and all(one == State.FAIL for one in states):
            raise CompetitionError(f"the first {len(states)} trials have all failed, the last one: {why}")


def with_usual(paths: list[Path], words: list[str]) -> list[str]:
    """Return words and those by which keys are as usual that change nothing beside a trial's other values, as those of
    one course of rates of several: a training by them would be refused."""
    config = load_config(paths, words)
    return [*words, *(f"{key}={json.dumps(_usual(config, key))}" for key in config.unused())]


def _usual(config: Config, key: str) -> Any:
    *above, last = key.split(".")
    section: Any = config
    for part in above:
        section = section[part] if isinstance(section, dict) else getattr(section, part)
    return section.usual(last)


def _goes_on_elsewhere(folder: Path) -> bool:
    """Return whether a process trains in a folder: of a sweep that was killed, its trainings may go on."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _scores(attempt: Attempt, metric: str) -> dict[int, float]:
    """Return the score of every epoch so far by its number, those of a second training behind the first one's."""
    found: dict[int, float] = {}
    for config in attempt.configs:
        first = max(found, default=0)
        rows = epochs_so_far(config.fold_folder)
        found |= {first + int(row["epoch"]): float(row[f"val/{metric}"]) for row in rows if row.get(f"val/{metric}")}
    return found


def _value(attempt: Attempt, metric: str) -> float | None:
    """Return the mean score of a trial's trainings, each of the epoch whose weights it keeps."""
    kept = [kept_epoch(config.fold_folder, config) or {} for config in attempt.configs]
    values = [float(row.get(f"val/{metric}") or "nan") for row in kept]
    return statistics.fmean(values) if all(map(math.isfinite, values)) else None


def write_down(asked: Sweep, study: Study) -> list[str]:
    """Write the best trial's config and, in a repo with pages, sweep.html; return in lines what they say."""
    ended = study.ended()
    if not ended:
        return ["no trial has ended yet"]
    if has_room("pages"):
        from competition.sweeps.page import write_sweep_page

        page = [f"table and plots: {write_sweep_page(here().outputs / 'sweep.html', asked, study)}"]
    else:
        page = []
    path = asked.folder / BEST
    with replacing(path) as temporary:
        temporary.write_text(best_config(asked, study.words(ended[0])), encoding="utf-8")
    lines = [
        f"{place}. {asked.run_name(one.number)}: {asked.metric} {one.value or 0:.4f}  {' '.join(study.words(one))}"
        for place, one in enumerate(ended[:STARTUP], start=1)
    ]
    return [*lines, *page, f"the best as a config: {path}; train all its folds with `competition run {path}`"]


def best_config(asked: Sweep, words: list[str]) -> str:
    """Return the best values as a config that inherits from the first file, with what other files and words said."""
    values = read_values(asked.paths[1:], with_usual(asked.paths, [*asked.words, *words]))
    kept = {key: value for key, value in values.items() if key not in ("name", "fold", "folds", "seed", "seeds")}
    base = Path(os.path.relpath(asked.paths[0].resolve(), asked.folder.resolve())).as_posix()
    return dump_yaml({"base": base, "name": f"{asked.config.name}_best", **kept})

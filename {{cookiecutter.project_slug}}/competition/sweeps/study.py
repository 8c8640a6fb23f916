"""The trials of a sweep: Optuna's journal in outputs/sweeps/NAME/, which processes and machines may share. No torch.

Of a trial that goes on somebody holds a lock, which the system frees with its process: one without is anybody's to go
on with.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from competition.runs.folder import JOURNAL, read_metrics
from competition.support.errors import CompetitionError
from competition.sweeps.space import Range

try:
    import optuna
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock
except ImportError:
    raise CompetitionError(
        "sweep: the package optuna is not installed; install it (`uv sync --extra sweep` or `pip install optuna`)"
    ) from None

LOCK = ".lock"
STARTUP = 5  # trials by chance, and ended ones that a hopeless one is told by
WARM_UP = 0.2  # share of the epochs before which none is called hopeless
State = optuna.trial.TrialState
NAMES = {
    State.COMPLETE: "ended",
    State.PRUNED: "stopped: hopeless",
    State.FAIL: "failed",
    State.RUNNING: "goes on",
    State.WAITING: "waits",
}
WHY = "why"  # of a trial: what a training that failed said last

optuna.logging.set_verbosity(optuna.logging.WARNING)


class _Lock(JournalFileSymlinkLock):
    """A lock that the system frees with its process: Optuna's own outlives one that is killed for half a minute."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


@dataclass
class Trial:
    """A trial that this process goes on with: its number, its values as words."""

    own: optuna.Trial
    words: list[str]
    lock: Any

    @property
    def number(self) -> int:
        """Return its place in the order in which trials began."""
        return self.own.number


@dataclass
class Study:
    """All trials of a sweep, whoever goes on with them."""

    folder: Path
    ranges: Sequence[Range]
    is_lower_better: bool
    seed: int
    epochs: int  # of a training
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        warm_up = max(round(WARM_UP * self.epochs), 1)
        try:
            storage = optuna.storages.JournalStorage(_open_journal(self.folder / JOURNAL))
            self.study = optuna.create_study(
                storage=storage,
                study_name=self.folder.name,
                direction="minimize" if self.is_lower_better else "maximize",
                pruner=optuna.pruners.MedianPruner(STARTUP, warm_up),
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CompetitionError(
                f"{self.folder / JOURNAL}: damaged ({type(error).__name__}: {error}); put back a copy, or delete "
                f"{self.folder} and begin under another name=..."
            ) from None

    def next(self, most: int) -> Trial | None:
        """Return a trial to go on with: one that its process left, else a new one while there are fewer than `most`."""
        with FileLock(self.folder / LOCK):
            known = self.trials()
            for frozen in known:
                if frozen.state == State.RUNNING and (lock := self._hold(frozen.number)):
                    return self._trial(optuna.Trial(self.study, frozen._trial_id), lock)
            if len(known) >= most:
                return None
            # By its number, and not by this process's course: several would begin with the same values.
            self.study.sampler = optuna.samplers.TPESampler(
                seed=hash((self.seed, len(known))) % 2**32, n_startup_trials=STARTUP, constant_liar=True
            )
            own = self.study.ask()
            lock = self._hold(own.number)
            assert lock is not None
            return self._trial(own, lock)

    def _trial(self, own: optuna.Trial, lock: Any) -> Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Trial(own, [one.word(_suggest(own, one)) for one in self.ranges], lock)

    def _hold(self, number: int) -> Any:
        lock = FileLock(self.folder / f".t{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def report(self, trial: Trial, values: dict[int, float]) -> bool:
        """Note a trial's scores by step, of which some may be known; return whether a new one shows it hopeless."""
        known = self.study._storage.get_trial(trial.own._trial_id).intermediate_values
        is_new = False
        for step, value in values.items():
            if step not in known:
                trial.own.report(value, step)
                is_new = True
        return is_new and trial.own.should_prune()

    def end(self, trial: Trial, state: State, value: float | None = None, why: str = "") -> None:
        """Note how a trial has ended."""
        if why:
            trial.own.set_user_attr(WHY, why)
        self.study.tell(trial.own, value, state)
        trial.lock.release()

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """Return all trials, in the order in which they began."""
        return self.study.get_trials(deepcopy=False)

    def ended(self) -> list[optuna.trial.FrozenTrial]:
        """Return those with a score, the best first."""
        found = [one for one in self.trials() if one.state == State.COMPLETE]
        return sorted(found, key=lambda one: (one.value or 0) if self.is_lower_better else -(one.value or 0))

    def words(self, trial: optuna.trial.FrozenTrial) -> list[str]:
        """Return the values of a trial as words."""
        return [one.word(trial.params[one.key]) for one in self.ranges if one.key in trial.params]

    def importances(self) -> dict[str, float]:
        """Return what share of the differences between scores comes from each key; nothing of too few trials."""
        if len({one.value for one in self.ended()}) < STARTUP - 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return dict(optuna.importance.get_param_importances(self.study, evaluator=evaluator))
            except (ValueError, RuntimeError):  # all alike
                return {}


def _suggest(own: optuna.Trial, one: Range) -> Any:
    """Return the value of a key; that of a trial which has one already is the same."""
    if one.kind == "choice":
        return own.suggest_categorical(one.key, one.choices)
    if one.kind == "int":
        return own.suggest_int(one.key, int(one.low), int(one.high))
    return own.suggest_float(one.key, one.low, one.high, log=one.kind == "log")


def _open_journal(path: Path) -> BaseJournalBackend:
    """Open the journal; a last line that a full disk has torn is cut off, as what follows would be added to it."""
    lock = _Lock(path.with_name(f".{path.name}.lock"))
    with lock.lock:
        if path.is_file():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            for line in content[:whole].splitlines():
                json.loads(line)
            if whole < len(content):
                with path.open("rb+") as file:
                    file.truncate(whole)
    return JournalFileBackend(str(path), lock)


def epochs_so_far(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a training's metrics.csv, a mapping an epoch; none while one is being written."""
    try:
        return read_metrics(folder)
    except CompetitionError:
        return []

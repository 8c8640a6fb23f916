"""A run's line in the ledger: begun by its first training, brought up to date when a stage has finished. No torch.

What the run's files say is read from them: metrics.csv, cv.csv, config.yaml, submission.csv. `scores` are those of
cv.csv, decoded as the submission is: with thresholds found on the other folds where tuning pays, else with those it
began with. Before `tune` they are those that the training itself measured with the weights it kept. Of a submission by
thresholds that were given by hand there are none.
"""

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from competition.config.settings import Config
from competition.runs.blend_recipe import STACK, read_recipe
from competition.runs.folder import (
    CONFIG,
    CV,
    LATEST,
    SUBMISSION,
    Run,
    chosen_weights,
    fold_of,
    is_finished,
    read_kept_config,
    read_metrics,
)
from competition.runs.ledger import (
    BY_HAND,
    EDITED,
    UNSCORED,
    Line,
    change_ledger,
    join_values,
    ledger_path,
    read_ledger,
    retire,
)
from competition.runs.provenance import difference, parent_of, provenance
from competition.runs.public_scores import PublicScore, read_scores, score_of_file, scores_path
from competition.runs.thresholds import are_edited, is_decoded_by_hand
from competition.scoring.out_of_fold import lower_is_better
from competition.scoring.tune import ENDINGS, honest_way, is_tuned, metric_names, other_code, read_cv
from competition.support.errors import CompetitionError
from competition.support.freshness import sha256
from competition.support.paths import here
from competition.training.monitor import best_row

IN_TRAINING = "of the best epoch"  # `thresholds` of scores that the training itself measured
MADE_OF = ("git_commit", "git_dirty", "data", "folds_csv", "device", "versions")


def begin(config: Config, bases: Sequence[str], device: str) -> None:
    """Note that a training begins, on a device; the first of a run begins the run's line."""
    made_of = {**provenance(config), "device": device}

    def change(lines: dict[str, Line]) -> None:
        begun = [path.parent for path in config.run_folder.glob(f"fold*/{CONFIG}")]
        if not any(is_finished(folder) or (folder / LATEST).is_file() for folder in begun):
            retire(lines, config.name)
        line = lines.get(config.name)
        if line is None or not line.started:
            line = replace(_new_line(config, parent_of(config, bases, lines)), others=line.others if line else {})
        joined = {name: join_values(getattr(line, name), value) for name, value in made_of.items()}
        joined["git_dirty"] = "yes" if "yes" in joined["git_dirty"] else joined["git_dirty"]
        lines[config.name] = replace(line, **joined)

    _change(change)


def record(run: str | Path, submitted: list[str] | None = None) -> None:
    """Bring the line of a run up to date with its files; a ledger that cannot be read is warned of.

    `submitted` are the overrides of a submission that was just written; None where none was.
    """

    def change(lines: dict[str, Line]) -> None:
        opened = Run.open(str(run))
        name = opened.folder.name
        line = lines.get(name) or _new_line(opened.untuned, "")
        found = {**_config_facts(opened, line, lines), **_scores(opened), **_cost(opened), **_handed_in(opened, line)}
        if by_hand := _by_hand(opened, line, found.get("submission", ""), submitted):
            found |= {"thresholds": by_hand, "scores": "", "mean": "", "std": ""}
        lines[name] = replace(line, run=name, **found)

    _change(change)


def record_missing() -> dict[str, Line]:
    """Return the ledger, with lines for the runs of outputs/ that have none yet, and anew for those whose scores are no
    longer of what they would hand in."""
    path = ledger_path()
    known = read_ledger(path)
    folders = sorted({found.parent.parent for found in here().outputs.glob(f"*/fold*/{CONFIG}")})
    for folder in folders:
        if any(is_finished(one) for one in folder.glob("fold*")) and _is_other(folder, known.get(folder.name)):
            record(folder)
    return read_ledger(path)


def _is_other(folder: Path, line: Line | None) -> bool:
    """Return whether a run has no line, or one that is scored where it should not be, by thresholds or code that are
    others now, or is not where it may be again, since these are as they were."""
    if line is None:
        return True
    if line.thresholds not in (*ENDINGS, *UNSCORED) and not (folder / CV).is_file():
        return False
    try:
        opened = Run.open(str(folder))
        if line.thresholds in UNSCORED:
            return _by_hand(opened, line, _submission(opened)) != line.thresholds
        if line.thresholds in ENDINGS:
            return are_edited(opened) or bool(other_code(opened))
        return is_tuned(opened)
    except CompetitionError:  # damaged, which is said where it is read
        return False


def take_public_scores(rows: Sequence[PublicScore]) -> None:
    """Write Kaggle's scores into the lines of the runs whose present submissions they are of."""
    found = {row.sha256: row.public_score for row in rows if row.sha256 and row.public_score}

    def change(lines: dict[str, Line]) -> None:
        for run, line in lines.items():
            lines[run] = replace(line, public_score=found.get(line.submission, line.public_score))

    _change(change)


def _change(change: Callable[[dict[str, Line]], None]) -> None:
    path = ledger_path()
    try:
        change_ledger(path, change)
    except Exception as error:
        # Whatever is wrong with a file of the run's: hours of training must not end as a failure here.
        print(f"warning: {path} was not brought up to date: {error}", file=sys.stderr, flush=True)


def _new_line(config: Config, parent: str) -> Line:
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    metric = metric_names(config)[0]
    better = "lower" if lower_is_better(config, metric) else "higher"
    # Of several seeds the first is the run's: which training comes first here is chance.
    config = config if config.seeds is None else config.model_copy(update={"seed": config.seeds[0]})
    return Line(config.name, parent, difference(config, parent) or "", now, metric=metric, better=better)


def _config_facts(opened: Run, line: Line, lines: Mapping[str, Line]) -> dict[str, str]:
    """Tell a run by its config; of a blend also what it is made of, by the lines of its sources."""
    metric = metric_names(opened.config)[0]
    better = "lower" if lower_is_better(opened.config, metric) else "higher"
    trainings = [read_kept_config(folder) for folder in opened.finished()]
    facts = {"metric": metric, "better": better, "folds": _distinct(trainings, "fold")}
    about = read_recipe(opened.folder)
    if not about:
        # The shipped config may have been edited since: what differed when the run was begun is told.
        changed = difference(opened.untuned, line.parent) if line.parent else None
        return {
            **facts,
            "seeds": _distinct(trainings, "seed"),
            "difference": line.difference if changed is None else changed,
        }
    sources = [lines[name] for name in about["sources"] if name in lines]
    made_of = {name: join_values(*(getattr(source, name) for source in sources)) for name in MADE_OF}
    shares = ", ".join(f"{name} {share:g}" for name, share in zip(about["sources"], about["weights"], strict=True))
    return {
        **facts,
        **made_of,
        "parent": " + ".join(about["sources"]),
        "difference": f"{about['mean']} of {', '.join(about['sources']) if about['mean'] == STACK else shares}",
    }


def _scores(opened: Run) -> dict[str, str]:
    """Return the score of each fold, their mean and spread, and of all folds pooled."""
    metric, files = metric_names(opened.config)[0], opened.out_of_fold_files()
    columns = ("thresholds", "scores", "mean", "std", "untuned", "tuned", "cross_fitted")
    if not files:
        return dict.fromkeys(columns, "")
    if not is_tuned(opened):
        return dict.fromkeys(columns, "") | _scores_in_training(opened, metric, [path.parent for path in files])
    rows = read_cv(opened.folder)
    how, way = honest_way(opened, rows["pooled"])
    # Of a fold whose first seed has not been trained another seed's training gives the name.
    folds = {_number(name): row[metric + way] for name, row in rows.items() if name.startswith("fold")}
    pooled = [rows["pooled"].get(f"{metric}{suffix}", "") for suffix in ("", "_tuned", "_cross_fitted")]
    mean, std = (rows[name][metric + way] for name in ("mean", "std"))
    return dict(zip(columns, (how, _by_fold(folds), mean, std, *pooled), strict=True))


def _by_hand(opened: Run, line: Line, submission: str, submitted: list[str] | None = None) -> str:
    """Return BY_HAND where the submission there is was made by other thresholds than those that the run is scored by,
    EDITED where only the next one would be, else nothing."""
    if submitted is None:
        is_handed_in = line.thresholds == BY_HAND and bool(submission) and line.submission == submission
    else:
        is_handed_in = is_decoded_by_hand(Run.open(str(opened.folder), submitted))
    return BY_HAND if is_handed_in else EDITED if are_edited(opened) else ""


def _scores_in_training(opened: Run, metric: str, folders: Sequence[Path]) -> dict[str, str]:
    """Return what metrics.csv says of the weights that were kept; the seeds of a fold count as their mean."""
    by_fold: dict[str, list[float]] = {}
    for folder in folders:
        row = kept_epoch(folder, opened.config)
        if row and row.get(f"val/{metric}"):
            by_fold.setdefault(_number(folder.name), []).append(float(row[f"val/{metric}"]))
    by_fold = {fold: values for fold, values in by_fold.items() if all(map(math.isfinite, values))}
    if not by_fold:
        return {}
    means = {fold: statistics.fmean(values) for fold, values in by_fold.items()}
    std = statistics.stdev(means.values()) if len(means) > 1 else 0.0
    return {
        "thresholds": IN_TRAINING,
        "scores": _by_fold({fold: f"{mean:.6f}" for fold, mean in means.items()}),
        "mean": f"{statistics.fmean(means.values()):.6f}",
        "std": f"{std:.6f}",
    }


def kept_epoch(folder: Path, config: Config) -> Mapping[str, str] | None:
    """Return the row of metrics.csv of the epoch whose weights predict, or of weights.csv where these were chosen."""
    if chosen := chosen_weights(folder, config.checkpoint):
        return chosen
    rows = read_metrics(folder)
    if config.checkpoint.predict_with == "latest":
        return rows[-1] if rows else None
    return best_row(rows, config)


def _cost(opened: Run) -> dict[str, str]:
    """Return the time of all epochs together and the most memory, as the trainings measured them."""
    rows = [row for folder in opened.finished() for row in read_metrics(folder, "seconds", "memory_mb")]
    seconds = sum(float(row["seconds"]) for row in rows)
    memory = max((float(row["memory_mb"]) for row in rows), default=0.0)
    return {"seconds": f"{seconds:.0f}", "memory_mb": f"{memory:.0f}"} if rows else {}


def _handed_in(opened: Run, line: Line) -> dict[str, str]:
    """Return the submission's checksum and its public score: that of another submission is not its own."""
    if not (found := _submission(opened)):
        return {}
    score = score_of_file(read_scores(scores_path()), opened.folder / SUBMISSION)
    before = line.public_score if line.submission in ("", found) else ""
    return {"submission": found, "public_score": score or before}


def _submission(opened: Run) -> str:
    """Return the checksum of the submission there is; nothing where there is none."""
    file = opened.folder / SUBMISSION
    return sha256(file) if file.is_file() else ""


def _distinct(configs: Sequence[dict[str, Any]], key: str) -> str:
    return " ".join(dict.fromkeys(str(config[key]) for config in configs))


def _by_fold(scores: Mapping[str, str]) -> str:
    return " ".join(f"{fold}={score}" for fold, score in scores.items())


def _number(training: str) -> str:
    return fold_of(training).removeprefix("fold")

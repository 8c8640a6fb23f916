"""outputs/sweep.html: which trials there were, what mattered, what is best. No torch; it needs the room of pages."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from competition.pages.page import GREY, Grid, Picture, Section, number, plot, write_page
from competition.pages.report_plots import COLORS
from competition.support.paths import here
from competition.sweeps.space import Range
from competition.sweeps.study import NAMES, STARTUP, WHY, State, Study, epochs_so_far

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from competition.sweeps.sweep import Sweep

MOST_CHOICES = 12  # whose names are written below a plot


def write_sweep_page(path: Path, asked: "Sweep", study: Study) -> Path:
    """Write the page of a sweep, as far as it has come, and return its path."""
    ended, trials = study.ended(), study.trials()
    better = "lower" if study.is_lower_better else "higher"
    facts = [
        ("score", f"{asked.metric}, the {better} the better"),
        ("trials", f"{len(trials)}, of which {len(ended)} have ended with a score"),
        *[(one.key, str(one)) for one in study.ranges],
        ("trained", "; ".join(" ".join(words[:2]) for words in asked.trained())),
    ]
    write_page(
        path, f"Sweep {asked.config.name}", facts, [_best(asked, study), _mattered(asked, study), _table(asked, study)]
    )
    return path


def _best(asked: "Sweep", study: Study) -> Section:
    ended = study.ended()
    if not ended:
        return Section("Best", ["No trial has ended with a score yet."])
    first, values = asked.run_name(ended[0].number), "  ".join(study.words(ended[0]))
    words = [f"{first}: {asked.metric} {ended[0].value or 0:.4f} with {values}"]
    words.append("It is the best of several on the same images, so its score flatters; train all folds to know.")
    return Section("Best", words, plots=[_course(asked, study)])


def _course(asked: "Sweep", study: Study) -> Picture:
    """Draw the score of each trial, and the best so far."""
    by_number = sorted(study.ended(), key=lambda one: one.number)
    choose = min if study.is_lower_better else max
    values = [one.value or 0.0 for one in by_number]
    best = [choose(values[: at + 1]) for at in range(len(values))]

    def draw(axes: "Axes") -> None:
        numbers = [one.number for one in by_number]
        axes.plot(numbers, values, "o", color=COLORS[2], label="a trial")
        axes.step(numbers, best, where="post", color=GREY, label="the best so far")
        axes.set(title=f"{asked.metric} by trial", xlabel="trial")
        axes.locator_params("x", integer=True)
        axes.legend()

    return plot(draw, f"{asked.metric} of each trial, and the best so far")


def _mattered(asked: "Sweep", study: Study) -> Section:
    shares = study.importances()
    if not shares:
        words = [f"What mattered shows when {STARTUP - 1} trials have ended with different scores."]
        return Section("What mattered", words, plots=[_by_value(asked, study, one) for one in study.ranges])
    words = ["Shares of the differences between scores that come from each key (fANOVA); of few trials a hint."]
    names = sorted(shares, key=lambda key: shares[key])

    def draw(axes: "Axes") -> None:
        axes.barh(range(len(names)), [shares[name] for name in names], color=COLORS[2])
        axes.set_yticks(range(len(names)), names)
        axes.set(title="what mattered", xlim=(0, 1))

    bars = plot(draw, "Shares of each key", left=0.2 + 0.075 * max(map(len, names)))
    return Section("What mattered", words, plots=[bars, *(_by_value(asked, study, one) for one in study.ranges)])


def _by_value(asked: "Sweep", study: Study, one: Range) -> Picture:
    """Draw the scores against the values of a key."""
    ended = study.ended()

    def draw(axes: "Axes") -> None:
        scores = [trial.value or 0.0 for trial in ended]
        if one.kind == "choice":
            axes.plot([one.choices.index(trial.params[one.key]) for trial in ended], scores, "o", color=COLORS[2])
            if len(one.choices) <= MOST_CHOICES:
                axes.set_xticks(range(len(one.choices)), one.choices)
        else:
            axes.plot([trial.params[one.key] for trial in ended], scores, "o", color=COLORS[2])
            axes.set(xscale="log" if one.kind == "log" else "linear")
        axes.set(title=f"{asked.metric} by {one.key}", xlabel=one.key)

    return plot(draw, f"{asked.metric} of trials by {one.key}")


def _table(asked: "Sweep", study: Study) -> Section:
    ended = study.ended()
    others = [one for one in study.trials() if one.state != State.COMPLETE]
    rows = []
    for trial in [*ended, *others]:
        folders = sorted((here().outputs / asked.run_name(trial.number)).glob("fold*"))
        epochs = [row for folder in folders for row in epochs_so_far(folder)]
        minutes = math.fsum(float(row.get("seconds") or 0) for row in epochs) / 60
        score = "" if trial.value is None else f"{trial.value:.4f}"
        values = [
            one.word(trial.params[one.key]).partition("=")[2] if one.key in trial.params else "" for one in study.ranges
        ]
        how = " ".join([NAMES[trial.state], trial.user_attrs.get(WHY, "")]).strip()
        rows.append([asked.run_name(trial.number), score, *values, f"{len(epochs)}", number(minutes), how])
    columns = ["run", asked.metric, *(one.key for one in study.ranges), "epochs", "minutes", "how it is"]
    words = ["Each is a run of this name: `competition runs` and `report` show it. Times are those of its epochs."]
    return Section("Trials", words, grids=[Grid(columns, rows)])

"""`competition runs`: the ledger on the terminal, two runs side by side, and scores against public ones. No torch."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from competition.comparison.compare import paired_gain, pick, why_not_comparable
from competition.comparison.update_ledger import IN_TRAINING, record_missing
from competition.config.settings import Config
from competition.runs.blend_recipe import blend_sources
from competition.runs.folder import Run
from competition.runs.ledger import COLUMNS, UNSCORED, Line, change_ledger, find_line, ledger_path
from competition.runs.provenance import differences
from competition.scoring.tune import GIVEN, OWN
from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError
from competition.support.paths import here

SHOWN = 3  # changes of a config in a row; `competition runs RUN` shows all
WIDTH = 200  # in a file or a pipe, where nothing says how wide a line may be
FLATTERS = "flatters"


def show(parts: Iterable[RenderableType]) -> None:
    """Print tables and lines, as wide as the terminal is."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    for part in parts:
        console.print(part)


def ordered(lines: Mapping[str, Line]) -> list[Line]:
    """Return all runs, those of a metric together, the best first."""
    metrics = list(dict.fromkeys(line.metric for line in lines.values()))
    return sorted(lines.values(), key=lambda line: (metrics.index(line.metric), _rank(line)))


def table_of_runs(lines: Mapping[str, Line]) -> list[RenderableType]:
    """Return a table for each metric, the best run first."""
    best_first = ordered(lines)
    parts: list[RenderableType] = [
        _table(metric, [line for line in best_first if line.metric == metric])
        for metric in dict.fromkeys(line.metric for line in best_first)
    ]
    marked = [line for line in lines.values() if _mark(line)]
    if any(line.thresholds == IN_TRAINING for line in marked):
        parts.append(f"* {IN_TRAINING}, as training measured it; `competition tune RUN` scores what is handed in")
    if any(FLATTERS in line.thresholds for line in marked):
        parts.append("** tuned on the images it is scored on, which flatters: it has a single fold")
    if any(line.cross_fitted for line in lines.values()):
        parts.append(
            "tuned: all folds as one set, each with the thresholds found on the others; - where that did not pay"
        )
    return parts


def one_run(line: Line) -> list[RenderableType]:
    """Return all that is known of a run."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        table.add_row(name, Text("\n".join(getattr(line, name).split("; "))))
    for name, value in line.others.items():
        table.add_row(name, Text(value))
    return [table]


def two_runs(one: Line, other: Line) -> list[RenderableType]:
    """Return how two configs differ, the scores by fold, and whether the difference is more than noise."""
    parts: list[RenderableType] = [Text(f"config of {one.run} -> {other.run}:")]
    parts += [Text(f"  {text}") for text in _config_differences(one, other)]
    reason = why_not_comparable(one, other)
    if reason is not None:
        return [*parts, Text(f"not comparable: {reason}")]
    parts.append(_fold_table(one, other))
    if one.thresholds != other.thresholds:
        parts.append(Text(f"note: {one.run} is scored {one.thresholds}, {other.run} {other.thresholds}"))
    if one.data != other.data:
        parts.append(Text("note: their data differ (train.csv, other tables of training images, or the images)"))
    return [*parts, Text(paired_gain(one, other).in_words(one.run, other.run, one.metric))]


def _table(metric: str, lines: Sequence[Line]) -> Table:
    better = lines[0].better or "higher"
    table = Table(box=SIMPLE_HEAD, title=f"{metric} ({better} is better)", title_justify="left")
    for name, width in {"run": 8, "parent": 8, "differs in": 26}.items():
        table.add_column(name, overflow="fold", min_width=width)
    for name in ("folds", "mean ± std", "tuned", "seconds", "public"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        gone = "" if (here().outputs / line.run).is_dir() else " (deleted)"
        number = str(len(line.fold_scores) or "-")
        cells = [line.run + gone, line.parent, _few(line.difference), number, _cv(line), _tuned(line), line.seconds]
        table.add_row(*map(Text, [*cells, line.public_score]))
    return table


def _rank(line: Line) -> float:
    mean = -line.sign * float(line.mean or "nan")
    return math.inf if math.isnan(mean) else mean


def _few(difference: str) -> str:
    changes = difference.split("; ")
    more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    return "\n".join([*changes[:SHOWN], *more])


def _cv(line: Line) -> str:
    return f"{float(line.mean):.4f} ± {float(line.std or 0):.4f}{_mark(line)}" if line.mean else "-"


def _mark(line: Line) -> str:
    return " *" if line.thresholds == IN_TRAINING else " **" if FLATTERS in line.thresholds else ""


def _tuned(line: Line) -> str:
    """Return the score of thresholds that tuning found; none where they did not pay, as they are not handed in."""
    if line.thresholds in (OWN, GIVEN, *UNSCORED):
        return "-"
    score = line.cross_fitted or line.tuned
    return f"{float(score):.4f}{'' if line.cross_fitted else ' **'}" if score else "-"


def _config_differences(one: Line, other: Line) -> list[str]:
    configs = [_config(line) for line in (one, other)]
    if configs[0] and configs[1]:
        return differences(configs[0], configs[1]) or ["the same config"]
    return [_in_words(line) for line in (one, other)]


def _in_words(line: Line) -> str:
    if " + " in line.parent:
        return f"{line.run}: {line.difference}"
    return f"{line.run}: {line.parent or 'the shipped config'} but for {line.difference or 'nothing'}"


def _config(line: Line) -> Config | None:
    """Return a run's config without what tuning found; None where its folder is gone, or it is a blend: the ledger then
    knows what it is."""
    if blend_sources(here().outputs / line.run):
        return None
    try:
        return Run.open(line.run).untuned
    except CompetitionError:
        return None


def _fold_table(one: Line, other: Line) -> Table:
    gain = paired_gain(one, other)
    title = f"{one.metric} ({one.better} is better), {one.thresholds}"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for name in ("fold", one.run, other.run, "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for fold, value in gain.by_fold.items():
        table.add_row(fold, *(f"{line.fold_scores[fold]:.4f}" for line in (one, other)), f"{value:+.4f}")
    return table


def runs(names: Sequence[str], *, public: float | None, pick_two: bool) -> None:
    """Show all runs, one or two; or name two submissions; or enter a public score."""
    lines = record_missing()
    if (public is not None and len(names) != 1) or (pick_two and (names or public is not None)) or len(names) > 2:
        raise CompetitionError(
            f"runs: found {len(names)} runs; expected none, one or two; one with --public, none with --pick"
        )
    if public is not None:
        enter_public_score(find_line(lines, names[0]).run, public)
    elif pick_two:
        show(map(Text, pick(lines)))
    elif len(names) == 2:
        show(two_runs(*(find_line(lines, name) for name in names)))
    elif names:
        show(one_run(find_line(lines, names[0])))
    else:
        show_all(lines)


def show_all(lines: dict[str, Line]) -> None:
    """Print the table, and draw the plot where there is something to draw."""
    if not lines:
        show([f"no run yet; {ledger_path()} begins with the first training"])
        return
    drawn = draw_public_scores(lines)
    show([*table_of_runs(lines), *([f"out of fold against public: {drawn}"] if drawn else [])])


def enter_public_score(run: str, score: float) -> None:
    """Write a public score that was read on the web into a run's line."""
    if not math.isfinite(score):
        raise CompetitionError(f"--public {score}: expected a number, as 0.81")

    def change(lines: dict[str, Line]) -> None:
        lines[run] = replace(lines[run], public_score=f"{score:g}" if float(f"{score:g}") == score else str(score))

    change_ledger(ledger_path(), change)
    show([Text(f"{run}: public score {score:g}, in {ledger_path()}")])


def draw_public_scores(lines: Mapping[str, Line]) -> Path | None:
    """Draw a point a run, with the spread over its folds, a panel a metric; None where there is too little to draw."""
    panels: dict[str, list[Line]] = {}
    for line in lines.values():
        if line.mean and line.public_score:
            panels.setdefault(line.metric, []).append(line)
    panels = {metric: known for metric, known in panels.items() if len(known) > 1}
    if not panels:
        return None
    import matplotlib as mpl

    mpl.use("Agg")  # no window, no display needed
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 5), layout="constrained", squeeze=False)
    for axis, (metric, known) in zip(axes[0], panels.items(), strict=True):
        means, publics = ([float(getattr(line, name)) for line in known] for name in ("mean", "public_score"))
        axis.errorbar(means, publics, xerr=[float(line.std or 0) for line in known], fmt="o", capsize=3)
        for line, mean, public in zip(known, means, publics, strict=True):
            axis.annotate(line.run, (mean, public), textcoords="offset points", xytext=(6, 4), parse_math=False)
        axis.set(xlabel=f"out of fold: {metric}, mean ± std over folds", ylabel="public score")
        axis.grid(alpha=0.3)
    path = here().outputs / "cv_public.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    plt.close(figure)
    return path

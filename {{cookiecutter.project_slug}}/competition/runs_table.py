"""`competition runs`: the ledger on the terminal, and two runs side by side. No torch."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from competition.blend_recipe import blend_sources
from competition.comparison import paired_gain, why_not_comparable
from competition.errors import CompetitionError
from competition.ledger import COLUMNS, Line
from competition.lineage import differences
from competition.places import here
from competition.record import IN_TRAINING
from competition.runs import Run
from competition.settings import Config
from competition.tune import GIVEN, OWN

SHOWN = 3  # changes of a config in a row; `competition runs RUN` shows all
WIDTH = 200  # in a file or a pipe, where nothing says how wide a line may be
FLATTERS = "flatters"


def show(parts: Iterable[RenderableType]) -> None:
    """Print tables and lines, as wide as the terminal is."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    for part in parts:
        console.print(part)


def table_of_runs(lines: Mapping[str, Line]) -> list[RenderableType]:
    """Return a table for each metric, the best run first."""
    parts: list[RenderableType] = []
    for metric in dict.fromkeys(line.metric for line in lines.values()):
        ordered = sorted((line for line in lines.values() if line.metric == metric), key=_rank)
        parts.append(_table(metric, ordered))
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
        parts.append(Text("note: their data differ (train.csv, pseudo-labels or the training images)"))
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
    if line.thresholds in (OWN, GIVEN):
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

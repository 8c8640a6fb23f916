"""`outputs/cv_public.png`: cross-validated scores against public ones, where two at least are known. No torch."""

from collections.abc import Mapping
from pathlib import Path

from competition.files import replacing
from competition.ledger import Line
from competition.places import here


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

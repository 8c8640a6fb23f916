"""`competition train CONFIG... --preview`: what every epoch will hold, at which learning rate, and how a batch looks.

Nothing is trained.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from competition.config.settings import Config
from competition.data.dataset import Batch, pixels_of, ready
from competition.data.folds import read_folds
from competition.data.pictures import CLASS_COLORS, Drawn, class_legend, sheet, small_picture
from competition.data.series_dataset import first_of_each
from competition.sampling.epoch_plan import plan_warnings
from competition.sampling.share_schedule import EpochCounts
from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.fold_data import FoldData
from competition.training.schedule import Plateau, learning_rate_factor
from competition.training.trainer import build_trainer

Row = dict[str, float]  # by column, in order; counts are whole numbers
MOST_DRAWN = 16  # images of a batch


def preview(config: Config) -> tuple[list[str], list[Path]]:
    """Return the table of epochs, line by line, and the paths of what was drawn: the epochs, and a batch.

    Where images cannot be read, as before they are downloaded, a line says so in place of the batch.
    """
    table = Task(config.task).table.read_table(config)
    data = FoldData(config, table, read_folds(config, table))
    data.trainer = build_trainer(config, [])
    plans = data.plan()
    ends = np.cumsum([plan.steps for plan in plans]).tolist()
    factor = learning_rate_factor(config.scheduler, ends[-1])
    lines: list[Row] = []
    for epoch, (plan, end) in enumerate(zip(plans, ends, strict=True)):
        first, last = (config.optimizer.lr * factor(step) for step in (end - plan.steps, end - 1))
        held = {"images": plan.images, "batches": plan.batches, "steps": plan.steps}
        counts = data.counts(epoch)
        drawn = {} if counts is None else _positives(counts)
        lines.append({"epoch": epoch + 1, **drawn, **held, "lr_first": first, "lr_last": last})
    said = [_format(lines), *plan_warnings(data.batches(), plans, config.ema)]
    if isinstance(factor, Plateau):
        said.append(f"scheduler: as long as {config.checkpoint.monitor} improves; else it falls as that tells")
    paths = [config.fold_folder / "preview.png"]
    _draw(lines, paths[0])
    try:
        picture = draw_batch(data, data.batch())
    except CompetitionError as error:
        return [*said, f"no batch is drawn: {error}"], paths
    paths.append(config.fold_folder / "preview_batch.png")
    with replacing(paths[-1]) as temporary:
        picture.save(temporary, format="png")
    return said, paths


def draw_batch(data: FoldData, batch: Batch) -> Image.Image:
    """Return the images of a batch as the network sees them, each with its target drawn onto it; of many the first."""
    task, classes = Task(data.config.task), data.table.classes
    is_8_bit = data.train_set.read(0).dtype == np.uint8
    pictures = []
    targets = task.dataset.batch_targets(batch)[:MOST_DRAWN]
    images = first_of_each(ready(batch, data.config, torch.float32)).cpu().float().numpy()
    for image_id, image, target in zip(batch["image_id"], images, targets, strict=False):
        drawn = small_picture(pixels_of(image, data.config.data, is_8_bit=is_8_bit))
        task.picture.draw(drawn, target, *image.shape[1:], CLASS_COLORS)
        pictures.append(Drawn(drawn, (image_id, task.picture.caption(target, classes))))
    return sheet(pictures, class_legend(task, classes))


def _positives(counts: EpochCounts) -> Row:
    return {"positives": counts.positives, "negatives": counts.negatives, "share": counts.share}


def _format(lines: list[Row]) -> str:
    forms = {"share": ".3f", "lr_first": ".2e", "lr_last": ".2e"}
    header = "".join(f"{name:>11}" for name in lines[0])
    return "\n".join([header, *("".join(f"{v:>11{forms.get(name, '')}}" for name, v in row.items()) for row in lines)])


def _draw(lines: list[Row], path: Path) -> None:
    columns = {name: [row[name] for row in lines] for name in lines[0]}
    has_positives = "share" in columns
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 + has_positives)
    if has_positives:
        axes[0].bar(columns["epoch"], columns["positives"], label="positives")
        axes[0].bar(columns["epoch"], columns["negatives"], bottom=columns["positives"], label="negatives")
        axes[0].set(title="images drawn", xlabel="epoch")
        axes[0].legend()
        axes[1].plot(columns["epoch"], columns["share"], marker=".")
        axes[1].set(title="share of positives", xlabel="epoch", ylim=(0, 1.05))
    else:
        axes[0].bar(columns["epoch"], columns["images"])
        axes[0].set(title="images", xlabel="epoch")
    axes[-1].plot(columns["epoch"], columns["lr_last"], marker=".")
    axes[-1].set(title="learning rate at the end of the epoch", xlabel="epoch")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)

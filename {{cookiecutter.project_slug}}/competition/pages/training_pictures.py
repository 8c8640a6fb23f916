"""Pictures of training images with their answers drawn onto them, for pages. No torch."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from competition.config.settings import Config
from competition.data.pictures import CLASS_COLORS, class_legend, small_picture
from competition.files.image_folder import row_in_words
from competition.files.item_source import own_part, train_source
from competition.files.series import image_of
from competition.pages.page import Picture, as_picture, css_color
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Task


def read_training_image(config: Config, image_id: str) -> np.ndarray | None:
    """Read an image (H, W, channels), without its neighbours; none where it cannot be, which is said elsewhere."""
    try:
        return own_part(train_source(config, image_of(config, image_id)).read(), config.data)
    except CompetitionError:
        return None


class TrainingAlbum:
    """Reads the images that a page shows, some dozens of all, and draws the truth onto them."""

    def __init__(self, config: Config, table: Table) -> None:
        self.config, self.table, self.task = config, table, Task(config.task)

    def legend(self) -> list[tuple[str, str]]:
        """Return the colors of classes, as a page has them."""
        return [(css_color(color), name) for color, name in class_legend(self.task, self.table.classes)]

    def pictures(self, rows: Sequence[int], notes: Mapping[int, str] | None = None) -> list[Picture]:
        """Return pictures of images by their numbers in the table, but for those that are damaged; `notes` are a line
        more below some."""
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda row: self._picture(row, (notes or {}).get(row)), rows)
            return [picture for picture in found if picture is not None]

    def _picture(self, row: int, note: str | None) -> Picture | None:
        image_id = str(self.table.image_ids[row])
        pixels = read_training_image(self.config, image_id)
        if pixels is None:
            return None
        height, width = pixels.shape[:2]
        try:
            truth = self.table.target(row, height, width)
        except CompetitionError:
            return None
        drawn = small_picture(pixels)
        self.task.picture.draw(drawn, truth, height, width, CLASS_COLORS)
        caption = self.task.picture.caption(truth, self.table.classes)
        lines = [image_id, caption, f"{height} x {width}, {row_in_words(self.config.data, self.table.lines[row])}"]
        return as_picture(drawn, f"Training image {image_id}: {caption}", [*lines, *([note] if note else [])])

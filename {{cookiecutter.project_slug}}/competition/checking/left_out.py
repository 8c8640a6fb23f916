"""What train.csv, or a json file in its place, names and no training sees. No torch."""

from competition.config.settings import Config
from competition.files.csv_file import read_csv, read_header
from competition.files.image_folder import left_out_images
from competition.files.joined_tables import has_table, table_files
from competition.files.other_tables import read_categories
from competition.tasks.contract import Table

CATEGORY = "category_id"  # COCO's


def describe_left_out(config: Config, table: Table) -> list[str]:
    """Say which images have no row left, and which categories of COCO's json no annotation."""
    if not has_table(config.train_csv):
        return []
    return [*_images(config, table), *_categories(config, table)]


def _images(config: Config, table: Table) -> list[str]:
    left_out = left_out_images(config, table.image_ids)
    if not len(left_out):
        return []
    line = f"{config.data.train_csv}: leaves out {len(left_out)} images with all their rows, as {left_out[0]!r}"
    return [line + way_on_for_absent(config)]


def way_on_for_absent(config: Config) -> str:
    """Return how images without a row are taken as ones without an answer, where that is possible."""
    is_left_out = config.model.answers_places and config.data.absent_images == "ignore"
    return "; where those are images without an answer: data.absent_images: empty" if is_left_out else ""


def _categories(config: Config, table: Table) -> list[str]:
    if CATEGORY not in read_header(config.train_csv):  # known already, while the file is parsed anew for categories
        return []
    first, *_ = table_files(config.train_csv) or [config.train_csv]
    names = read_categories(first)
    if not set(table.classes) & {*names, *names.values()}:
        return []
    found = set(read_csv(config.train_csv, [CATEGORY])[CATEGORY])
    unused = [f"{one} ({name})" if name else one for one, name in names.items() if one not in found]
    if not unused:
        return []
    way_on = ", which are no classes unless data.classes lists them" if config.data.classes is None else ""
    return [f"{config.data.train_csv}: {len(unused)} of {len(names)} categories have no row, as {unused[0]}{way_on}"]

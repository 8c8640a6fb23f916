"""What of an image another run found, by which `data.crop` cuts it out: crops.csv of that run. No torch.

A row is a box of an image, the surest first; an image in which nothing was found has one without a box. Places are
shares of the image's sides, so that both runs may read it at a size of their own.
"""

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from competition.config.data_settings import Data
from competition.config.settings import Config
from competition.files.csv_file import read_csv, row_faults
from competition.files.csv_numbers import numbers_in
from competition.support.errors import CompetitionError
from competition.support.freshness import changed_sources, state_of
from competition.support.paths import here

CROPS = "crops.csv"
PLACES = ("left", "top", "right", "bottom")
# part: train or test, as ids of both may be the same; confidence: for whoever looks at it.
COLUMNS = ("part", "image_id", *PLACES, "confidence")
Shares = tuple[float, ...]  # left, top, right, bottom from 0 to 1; nothing: all
Boxes = dict[tuple[str, str], np.ndarray]  # by part and image: (k, 4), the surest first
AnyConfig = TypeVar("AnyConfig", bound=Config)


def crops_file(data: Data) -> Path | None:
    """Return the file that `data.crop` reads; None without one."""
    if data.crop is None:
        return None
    return data.crop.csv if data.crop.run is None else folder_of_stage(data.crop.run) / CROPS


def folder_of_stage(run: str) -> Path:
    """Return the folder of the run that goes before: of this project by its name, of another one by its path.

    In a Kaggle notebook, whose own runs are elsewhere, it is what came along with the code.
    """
    candidates = [here().outputs / run, Path("outputs") / run, Path(run)]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def crop_sources(folder: Path) -> list[Path]:
    """Return what crops.csv, maps/ and pseudo-labels of a run's folder are made from, of that what is there."""
    named = [*sorted(folder.glob("fold*/oof.npz")), folder / "test.npz", folder / "postprocess.yaml"]
    return [path for path in named if path.is_file()]


def refuse_absent_crops(data: Data) -> None:
    """Raise CompetitionError where the file of `data.crop` is not there, older than its run, or at fault."""
    if (path := crops_file(data)) is None:
        return
    _read(path, state_of(path))
    if path.name == CROPS:
        refuse_older(path, path.parent, "crops")


def shares_of(data: Data, image_id: str, *, of_test: bool) -> Shares:
    """Return what is seen of an image by `data.crop`; raise CompetitionError for one that its run was not asked about.

    A training image that the run does not train on may be one of its test images: it has not seen that either.
    """
    path = crops_file(data)
    if path is None or data.crop is None:
        return ()
    found = _found(_read(path, state_of(path)), image_id, of_test=of_test)
    if found is None:
        raise unasked(image_id, f"{path} (data.crop)", of_test=of_test)
    return with_margin(found if data.crop.take == "all" else found[:1], data.crop.margin)


def parts_of(of_test: bool) -> tuple[str, ...]:
    """Return where an image is looked for, in this order."""
    return ("test",) if of_test else ("train", "test")


def _found(known: Boxes, image_id: str, *, of_test: bool) -> np.ndarray | None:
    return next((known[part, image_id] for part in parts_of(of_test) if (part, image_id) in known), None)


def unasked(image_id: str, where: str, *, of_test: bool) -> CompetitionError:
    """Return the error of an image of which a file or folder of another run, with its key of `data:`, says nothing."""
    return CompetitionError(
        f"image {image_id!r}: {where} says nothing of it; its run must have it among its "
        f"{'test images' if of_test else 'training images, with all folds trained, or its test images'}"
    )


def refuse_older(path: Path, run: Path, verb: str) -> None:
    """Raise CompetitionError where what a verb wrote is older than what its run says now."""
    if newer := changed_sources(path, crop_sources(run)):
        raise CompetitionError(f"{path}: is older than {newer[0]}; make it anew with {way_on(run, verb)}")


def absent(path: Path, run: Path, verb: str, key: str) -> CompetitionError:
    """Return the error of a file of a run that is not there, nor perhaps the run."""
    if not run.is_dir():
        expected = "expected a run's name or, of another project, its folder, as ../boxes/outputs/boxes1"
        return CompetitionError(f"{run}: no such run ({key}); {expected}")
    return CompetitionError(f"{path}: no such file ({key}); make it with {way_on(run, verb)}")


def way_on(run: Path, verb: str) -> str:
    """Say where a run's files are made."""
    return f"`competition {verb} {run.name}`, in the project of that run"


def with_margin(boxes: np.ndarray, margin: float) -> Shares:
    """Return the rectangle around boxes (k, 4), wider by shares of its sides to each side, within the image."""
    if not len(boxes):
        return ()
    begin, end = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    wider = (end - begin) * margin
    return tuple(np.clip([*(begin - wider), *(end + wider)], 0, 1).tolist())


def cut(pixels: np.ndarray, seen: Shares) -> np.ndarray:
    """Return what is seen of an image (H, W, channels)."""
    if not seen:
        return pixels
    left, top, right, bottom = _pixels_of(*pixels.shape[:2], seen)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def size_of_cut(height: int, width: int, seen: Shares) -> tuple[int, int]:
    """Return height and width of what is seen of an image."""
    if not seen:
        return height, width
    left, top, right, bottom = _pixels_of(height, width, seen)
    return bottom - top, right - left


def _pixels_of(height: int, width: int, seen: Shares) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom in pixels, of which there is one at least."""
    left, top = (min(round(share * side), side - 1) for share, side in zip(seen[:2], (width, height), strict=True))
    right, bottom = (round(share * side) for share, side in zip(seen[2:], (width, height), strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def describe_crops(data: Data, train_ids: np.ndarray, test_ids: np.ndarray | None) -> list[str]:
    """Say by which boxes images are cropped, and how many have none; nothing without `data.crop`."""
    if data.crop is None or (path := crops_file(data)) is None:
        return []
    known, said = _read(path, state_of(path)), list[str]()
    for what, ids, of_test in (("training", train_ids, False), ("test", test_ids, True)):
        found = [_found(known, one, of_test=of_test) for one in (() if ids is None else ids)]
        empty = sum(boxes is not None and not len(boxes) for boxes in found)
        said.append(f"{len(found)} {what} images, of which {empty} have no box and are seen whole")
    return [f"data.crop: {path}: {'; '.join(said)}"]


def uncropped(config: AnyConfig) -> AnyConfig:
    """Return the config by which images are seen whole."""
    return config.model_copy(update={"data": config.data.model_copy(update={"crop": None})})


@lru_cache(maxsize=8)
def _read(path: Path, changed: tuple[int, int]) -> Boxes:
    """Read a file as it is now."""
    if not path.is_file():
        if path.name == CROPS:
            raise absent(path, path.parent, "crops", "data.crop")
        raise CompetitionError(f"{path}: no such file (data.crop); correct the name")
    frame = read_csv(path, COLUMNS[:-1])
    texts = frame[list(PLACES)]
    is_empty = (texts == "").all(axis=1).to_numpy()
    places = numbers_in(texts)
    is_box = ((places >= 0) & (places <= 1)).all(axis=1) & (places[:, :2] <= places[:, 2:]).all(axis=1)
    column = frame[["part", *PLACES]].agg(",".join, axis=1)
    wrong = ~(is_empty | is_box) | ~frame["part"].isin(["train", "test"]).to_numpy()
    if wrong.any():
        expected = f"expected train or test, and {', '.join(PLACES)} as shares from 0 to 1, or none of the four"
        raise CompetitionError("\n".join(row_faults(path, np.flatnonzero(wrong).tolist(), column, expected)))
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for key, place, empty in zip(zip(frame["part"], frame["image_id"], strict=True), places, is_empty, strict=True):
        found.setdefault(key, []).extend([] if empty else [place])
    return {key: np.array(rows).reshape(-1, 4) for key, rows in found.items()}

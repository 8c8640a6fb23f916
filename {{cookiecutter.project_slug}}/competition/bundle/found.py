"""What the bundle of a run of boxes or masks says to one that looks by it: where images have something, and what each
of their pixels is.

The other one asks from `stages.py`, in a process of its own.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from competition.bundle.offline import Bundle
from competition.bundle.predictor import Predictor
from competition.bundle.stages import ONE_BY_ONE, refuse_other_pixels
from competition.config.settings import Config
from competition.files.crops import COLUMNS, CROPS
from competition.files.csv_file import read_csv
from competition.files.maps import MAPS, write_maps
from competition.submission.write_crops import answers, crop_rows, refuse_placeless
from competition.submission.write_maps import refuse_mapless, said_in_maps
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction

Said = Iterable[tuple[str, tuple[int, int], Prediction]]  # image id, height and width, what is predicted


def _crops(config: Config, classes: Sequence[str], said: Said, folder: Path) -> None:
    found = answers(config, said)
    write_csv(folder / CROPS, COLUMNS, (row for one in found for row in crop_rows("test", *one)))


def _maps(config: Config, classes: Sequence[str], said: Said, folder: Path) -> None:
    write_maps(folder / MAPS, classes, said_in_maps("test", said))


Write = Callable[[Config, Sequence[str], Said, Path], None]
# By verb of the project, what refuses a run that has nothing of the kind to say, and what writes.
WRITE: dict[str, tuple[Callable[[Config], None], Write]] = {
    "crops": (refuse_placeless, _crops),
    "maps": (refuse_mapless, _maps),
}


def say(folder: Path, data: Path | None, asked: Path, what: Sequence[str]) -> None:
    """Write crops.csv, maps/ or both of the test images that a csv file names in the column image_id, into the working
    folder; or, for `-`, of those that are asked for one by one.

    Raises CompetitionError where the bundle does not reproduce what it was scored with.
    """
    if str(asked) == ONE_BY_ONE:
        _answer_one_by_one(folder, data)
        return
    bundle = Bundle(folder, data)
    for refuse, _ in map(WRITE.__getitem__, what):
        refuse(bundle.config)
    bundle.reproduce()
    ids = read_csv(asked, ["image_id"])["image_id"].to_numpy(dtype=object)
    with tempfile.TemporaryDirectory() as workspace:
        stored, lines = bundle.predict(Path(workspace), ids)
        print("".join(f"warning: {line}\n" for line in lines), end="", flush=True)
        for _, write in map(WRITE.__getitem__, what):
            write(bundle.config, stored.classes, stored, Path())
    print(f"{folder.name}: {', '.join(what)} of {len(ids)} images", flush=True)


def _answer_one_by_one(folder: Path, data: Path | None) -> None:
    """Answer each line of standard input, which names an image, the file of its pixels and the folder where to write
    what of it, by a line."""
    said, sys.stdout = sys.stdout, sys.stderr  # whatever else prints must not stand among the answers
    predictor = Predictor(folder, data)
    config, classes = predictor.bundle.config, predictor.bundle.members[0].classes
    for line in sys.stdin:
        question = json.loads(line)
        image_id = question["image_id"]
        try:
            pixels = None if question["pixels"] is None else np.load(question["pixels"])
            for member in predictor.bundle.members if pixels is not None else ():
                refuse_other_pixels(member.config.data, question["read_by"])
            prediction, size = predictor.prediction(image_id, pixels)
            for refuse, write in map(WRITE.__getitem__, question["what"]):
                refuse(config)
                write(config, classes, [(image_id, size, prediction)], Path(question["folder"]))
            reply = {}
        except CompetitionError as error:
            reply = {"fault": str(error)}
        print(json.dumps(reply), file=said, flush=True)

"""What the bundle of a run of boxes or masks says to one that looks by it: where images have something.

The other one asks from `stages.py`, in a process of its own.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from competition.bundle.offline import Bundle
from competition.bundle.predictor import Predictor
from competition.bundle.stages import ONE_BY_ONE
from competition.files.crops import COLUMNS, CROPS, PLACES
from competition.files.csv_file import read_csv
from competition.submission.write_crops import answers, crop_rows, refuse_placeless
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError


def say_crops(folder: Path, data: Path | None, asked: Path) -> None:
    """Write crops.csv of the test images that a csv file names in the column image_id, into the working folder; or, for
    `-`, say it of those that are asked for one by one.

    Raises CompetitionError where the bundle does not reproduce what it was scored with.
    """
    if str(asked) == ONE_BY_ONE:
        _answer_one_by_one(folder, data)
        return
    bundle = Bundle(folder, data)
    refuse_placeless(bundle.config)
    bundle.reproduce()
    ids = read_csv(asked, ["image_id"])["image_id"].to_numpy(dtype=object)
    with tempfile.TemporaryDirectory() as workspace:
        stored, lines = bundle.predict(Path(workspace), ids)
        print("".join(f"warning: {line}\n" for line in lines), end="", flush=True)
        found = answers(bundle.config, stored)
        write_csv(Path(CROPS), COLUMNS, (row for one in found for row in crop_rows("test", *one)))
    print(f"{folder.name}: said of {len(ids)} images where they have something", flush=True)


def _answer_one_by_one(folder: Path, data: Path | None) -> None:
    """Answer each line of standard input, an image's id and the file of its pixels, by a line of its boxes."""
    said, sys.stdout = sys.stdout, sys.stderr  # whatever else prints must not stand among the answers
    predictor = Predictor(folder, data)
    refuse_placeless(predictor.bundle.config)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            pixels = None if question["pixels"] is None else np.load(question["pixels"])
            answer, size = predictor.answer(question["image_id"], pixels)
            rows = [
                dict(zip(COLUMNS, row, strict=True)) for row in crop_rows("test", question["image_id"], answer, size)
            ]
            reply = {"boxes": [[float(row[place]) for place in PLACES] for row in rows if row[PLACES[0]]]}
        except CompetitionError as error:
            reply = {"fault": str(error)}
        print(json.dumps(reply), file=said, flush=True)

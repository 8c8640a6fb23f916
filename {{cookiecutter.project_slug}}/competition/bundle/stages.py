"""Stages: whole bundles of other runs, which say where new images have something, or what their pixels are, before this
one looks at them.

A bundle works in a process of its own: its code and packages are its own, too, perhaps those of another project. What
it answers there stands in `found.py`.
"""

import json
import subprocess
import sys
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from shutil import copytree
from typing import Any

import cv2
import numpy as np

from competition.bundle.manifest import MANIFEST, SCRIPT, STAGES, read_manifest
from competition.config.data_settings import Data
from competition.config.settings import Config
from competition.files.crops import CROPS, folder_of_stage, shares_of
from competition.files.image_folder import test_pattern
from competition.files.images import read_image
from competition.files.maps import map_files
from competition.files.series import images_of_groups, is_series
from competition.prediction.stored import TOLERANCE
from competition.runs.folder import BUNDLE, Run
from competition.submission.join import is_of_this_project
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import is_up_to_date
from competition.support.paths import PACKAGE
from competition.support.spread import spread
from competition.tasks.contract import Task

ONE_BY_ONE = "-"  # in place of a file of images: they are asked for on standard input
CHECKED_IMAGES = 8
EVERYTHING = (0.0, 0.0, 1.0, 1.0)


def whole_bundle(folder: Path) -> Path:
    """Return the bundle of another run; raise CompetitionError where there is none, or one that is old."""
    way_on = f"make it first with `competition bundle {folder.name}`"
    if not (folder / BUNDLE / MANIFEST).is_file():
        raise CompetitionError(f"{folder / BUNDLE}: no bundle there; {way_on}")
    if is_of_this_project(folder) and not is_up_to_date(
        folder / BUNDLE / MANIFEST, Run.open(str(folder)).bundle_sources()
    ):
        raise CompetitionError(f"{folder / BUNDLE}: is older than what it was made from; {way_on}")
    read_manifest(folder / BUNDLE)
    return folder / BUNDLE


def copy_stages(members: Iterable[Run], folder: Path, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Copy the bundles of the runs that members look by into a bundle's folder; say how near they come to what these
    looked by.

    Raises CompetitionError where there is none, or where it finds something else.
    """
    copied = dict[str, Path]()
    # By stage and the competition's files, who looks at its images by what of it.
    lookers = defaultdict[tuple[Path, Path], list[tuple[Run, list[str]]]](list)
    for member in members:
        crop = member.config.data.crop
        if crop is not None and crop.run is None:
            raise CompetitionError(
                f"{member.folder}: data.crop.csv: {crop.csv} cannot tell a bundle what new images have; crop by a run, "
                "as data.crop={run: boxes1}, or hand in submission.csv"
            )
        for run, what in member.config.data.stages.items():
            stage = folder_of_stage(run)
            if copied.setdefault(stage.name, stage.resolve()) != stage.resolve():
                raise CompetitionError(
                    f"{member.folder}: data: {stage} and {copied[stage.name]} have one name; a bundle needs runs of "
                    "distinct names"
                )
            if not (folder / STAGES / stage.name).is_dir():
                copytree(_answering(whole_bundle(stage)), folder / STAGES / stage.name)
            lookers[folder / STAGES / stage.name, member.config.data.dir].append((member, what))
    return [line for (stage, data), its in lookers.items() for line in _prove(stage, data, its, classes)]


def _answering(bundle: Path) -> Path:
    """Return a bundle, perhaps of another project, if it can say where images have something."""
    if not (bundle / PACKAGE.name / "bundle" / "found.py").is_file():
        raise CompetitionError(
            f"{bundle}: cannot say where new images have something: its project is of an older version of the "
            f"template; update that and make it again with `competition bundle {bundle.parent.name}`"
        )
    return bundle


def _prove(
    stage: Path, data: Path, lookers: Sequence[tuple[Run, list[str]]], classes: Mapping[str, Sequence[str]]
) -> list[str]:
    """Let a stage say again what it finds in some test images; say how near it came to what each run looked by."""
    ids = [_some_of_test(looker.config, classes[looker.folder.name]) for looker, _ in lookers]
    all_of_it = dict.fromkeys(each for _, what in lookers for each in what)
    with tempfile.TemporaryDirectory() as workspace:
        folder = let_find(stage, all_of_it, data, chain.from_iterable(ids), Path(workspace))
        return [_compare(stage, *looker, its, folder) for looker, its in zip(lookers, ids, strict=True)]


def _some_of_test(config: Config, classes: Sequence[str]) -> list[str]:
    images = images_of_test(config, classes)
    return [images[row] for row in spread(len(images), CHECKED_IMAGES)]


def _compare(stage: Path, member: Run, what: Sequence[str], ids: Sequence[str], folder: Path) -> str:
    """Say how near what a stage has found, into a folder, comes to what a run looked by."""
    config, found = member.config, looking_by(member.config, dict.fromkeys(what, folder))
    gaps = [max(_gap(each, one, found.data, config.data) for each in what) for one in ids]
    if np.median(gaps) > TOLERANCE:  # of a few images another box may be as sure
        raise CompetitionError(
            f"{stage.name}: its bundle finds something else in most of {len(ids)} test images than what "
            f"{member.folder} looked by ({np.median(gaps):.2f} apart, at most {TOLERANCE} is allowed); make its bundle "
            f"and {' and '.join(what)} anew, by `competition bundle {stage.name}` and the verb of that name"
        )
    return f"{stage.name}: {', '.join(what)} of {len(ids)} test images made again, at most {max(gaps):.4f} apart"


def _gap(what: str, image_id: str, now: Data, then: Data) -> float:
    """Return how far the sides of what is seen of a test image are apart, or its pixels on average."""
    if what == "maps":
        pairs = zip(*(map_files(each, image_id, of_test=True) for each in (now, then)), strict=True)
        return max(float(np.mean(cv2.absdiff(*map(_grey, pair)))) / 255 for pair in pairs)
    sides = [shares_of(each, image_id, of_test=True) or EVERYTHING for each in (now, then)]
    return float(np.abs(np.subtract(sides[0], sides[1])).max())


def _grey(path: Path) -> np.ndarray:
    return read_image(path, 1)[:, :, 0]


def images_of_test(config: Config, classes: Sequence[str]) -> list[str]:
    """Return the ids of the images that a run reads to answer all that is asked for."""
    ids = Task(config.task).submission.read_test_ids(config, classes).tolist()
    if not is_series(config):
        return ids
    return [image_id for group in images_of_groups(config, ids, of_test=True).values() for image_id in group]


def looking_by(config: Config, found: Mapping[str, Path]) -> Config:
    """Return the config that looks at images by what was written of them, crops or maps, into a folder each."""
    update = dict[str, Any]()
    if (folder := found.get("crops")) is not None and config.data.crop is not None:
        update["crop"] = config.data.crop.model_copy(update={"run": None, "csv": folder / CROPS})
    if (folder := found.get("maps")) is not None and config.data.maps is not None:
        update["maps"] = config.data.maps.model_copy(update={"run": str(folder.resolve())})
    return config.model_copy(update={"data": config.data.model_copy(update=update)})


def let_find(stage: Path, what: Iterable[str], data: Path, image_ids: Iterable[str], workspace: Path) -> Path:
    """Let a stage say what it finds in test images; return the folder that it writes crops.csv and maps/ into."""
    folder = workspace / f"found by {stage.name}"
    folder.mkdir()
    asked = folder / "images.csv"
    write_csv(asked, ["image_id"], ([image_id] for image_id in dict.fromkeys(image_ids)))
    let_work(stage, data, folder, asked.resolve(), *map(Path, what))
    return folder


def let_work(bundle: Path, data: Path, folder: Path, *more: Path) -> None:
    """Let another bundle write what it has to say into a folder; raise CompetitionError with its last line where it
    fails."""
    words = [*_start(bundle, data), *map(str, more)]
    done = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise CompetitionError(_failed(bundle, done.stderr, done.returncode))


def _start(bundle: Path, data: Path) -> list[str]:
    return [sys.executable, str((bundle / SCRIPT).resolve()), str(data.resolve())]


def _failed(bundle: Path, errors: str, status: int | None) -> str:
    said = errors.strip().splitlines() or [f"it ended with status {status}"]
    return f"{bundle}: {said[-1]}"


class Stage:
    """A stage that is asked for one image after the other, in a process that ends with this one."""

    def __init__(self, bundle: Path, data: Path) -> None:
        self.bundle = bundle
        self._folder = tempfile.TemporaryDirectory()
        self._errors = (Path(self._folder.name) / "errors.txt").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [*_start(bundle, data), ONE_BY_ONE],
            cwd=self._folder.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        weakref.finalize(self, _end, self._process)

    def find(self, what: Iterable[str], folder: Path, image_id: str, image: np.ndarray | None, data: Data) -> None:
        """Write into a new folder what is found in an image (H, W, channels), which another run reads by its `data`, or
        in the test image of that name."""
        folder.mkdir()
        pixels = None
        if image is not None:
            pixels = str(Path(self._folder.name) / "image.npy")
            np.save(pixels, image)
        asked = {"what": list(what), "image_id": image_id, "pixels": pixels, "folder": str(folder.resolve())}
        reply = self._ask(asked | {"read_by": how_read(data)})
        if "fault" in reply:
            raise CompetitionError(f"{self.bundle}: {reply['fault']}")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            raise CompetitionError(_failed(self.bundle, self._errors.read(), status))
        return json.loads(line)


def wanted_of(each: Iterable[Data]) -> dict[str, list[str]]:
    """Return by stage all that runs with these settings look at images by."""
    wanted = defaultdict[str, dict[str, None]](dict)
    for data in each:
        for run, what in data.stages.items():
            wanted[run].update(dict.fromkeys(what))
    return {run: list(what) for run, what in wanted.items()}


class Finding:
    """What stages find in images, of which each is asked once, however many runs look by it."""

    def __init__(self, stages: Mapping[str, Stage], wanted: Mapping[str, Iterable[str]], folder: Path) -> None:
        """Take stages and all that is wanted of each by its name; write into a folder."""
        self._stages, self._wanted, self._folder = stages, wanted, folder
        self._found: dict[tuple[str, str, str], Path] = {}

    def looking(self, config: Config, image_id: str, image: np.ndarray | None) -> Config:
        """Return the config that looks at an image, given or the test image of that name, by what was found in it."""
        found = dict[str, Path]()
        for run, what in config.data.stages.items():
            key = run, image_id, json.dumps(how_read(config.data)) if image is not None else ""
            if key not in self._found:
                folder = self._folder / str(len(list(self._folder.iterdir())))
                self._stages[run].find(self._wanted[run], folder, image_id, image, config.data)
                self._found[key] = folder
            found |= dict.fromkeys(what, self._found[key])
        return looking_by(config, found)


def how_read(data: Data) -> dict[str, Any]:
    """Return the settings by which a test image comes to the pixels that it has."""
    return {
        "data.test_images": data.test_images,
        "data.image_file": data.files or [test_pattern(data)],
        "data.channels": data.own_channels,
        "data.stack": None if data.stack is None else data.stack.model_dump(mode="json"),
        "data.dicom_window": [list(window) for window in data.windows],
        "data.exif_orientation": data.exif_orientation,
    }


def refuse_other_pixels(data: Data, read_by: Mapping[str, Any]) -> None:
    """Raise CompetitionError where pixels that are read by some settings are none for a run with this `data`."""
    for key, own in how_read(data).items():
        if own != read_by.get(key, own):
            raise CompetitionError(
                f"looks at images by {key}: {own}, and the run that asks, by {read_by[key]}: pixels of one are none of "
                "the other; ask by image_id alone, that each reads its own"
            )


def _end(process: "subprocess.Popen[str]") -> None:
    """Let a process end that waits for a question."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # it has ended
                pipe.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

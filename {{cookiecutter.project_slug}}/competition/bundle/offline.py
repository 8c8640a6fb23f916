"""A bundle at work, without network or Lightning: it is verified, proves itself, predicts, writes the submission.

`infer.py` and `infer.ipynb` of a bundle call `infer`, by `infer_script`. Nothing is written into the bundle's folder.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from competition.bundle.manifest import (
    CHECK,
    COLUMNS,
    IMAGES,
    MEMBERS,
    PARTS,
    RECIPE,
    RUNS,
    SOURCES,
    STAGES,
    UNSEEN,
    WHEELS,
    read_manifest,
)
from competition.bundle.packed_images import refuse_packed
from competition.bundle.stages import images_of_test, let_find, let_work, looking_by, wanted_of
from competition.bundle.wheels import import_wheels
from competition.config.loading import load_config
from competition.config.settings import Config, with_classes
from competition.config.views import views_of
from competition.files.item_source import copied_source
from competition.files.series import is_series, one_by_one
from competition.files.table_columns import read_values
from competition.prediction.averages import Ranks, average_predictions
from competition.prediction.stacking import Stack, apply_stack, texts_of_test
from competition.prediction.stored import TOLERANCE, Predictions, PredictionWriter
from competition.runs.blend_recipe import STACK, unless_equal
from competition.runs.folder import CONFIG, POSTPROCESS, SUBMISSION, read_own_yaml
from competition.submission.join import join_submissions
from competition.submission.submit import checked_submission
from competition.support.errors import CompetitionError
from competition.support.paths import KAGGLE
from competition.tasks.contract import Prediction, Task

if TYPE_CHECKING:  # torch is imported after the wheels have been unpacked
    from torch import nn

    from competition.data.dataset import ImageDataset
    from competition.prediction.ensemble import Ensemble


@dataclass(frozen=True)
class Member:
    """A run whose networks predict."""

    name: str
    config: Config
    classes: list[str]
    trainings: list[str]
    weights: Path  # folder of a safetensors file for each training
    check: Path  # folder of stored predictions and their images

    @cached_property
    def networks(self) -> "dict[str, nn.Module]":
        """Return the trained networks by the names of their trainings, in evaluation mode."""
        from safetensors.torch import load_file

        networks = {}
        for training in self.trainings:
            config = with_classes(self.config, self.classes)
            network = Task(config.task).model.build_network(config, len(self.classes))
            network.load_state_dict(load_file(self.weights / f"{training}.safetensors"))
            networks[training] = network.eval()
        return networks

    def ensemble(self, training: str | None = None) -> "Ensemble":
        """Return the networks of all trainings, or of one, in the views of `tta`."""
        from competition.prediction.ensemble import Ensemble

        networks = [self.networks[training]] if training else list(self.networks.values())
        return Ensemble(self.config, networks, views_of(self.config.tta))


class Bundle:
    """The folder that `competition bundle` wrote; raises CompetitionError if it is not whole."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        import_wheels(folder / WHEELS)
        words = self._where_data_is(data)
        tuned = [path for path in [folder / POSTPROCESS] if path.is_file()]
        self.config = load_config([folder / CONFIG, *tuned], words)
        self.members = [self._member(name, about, words) for name, about in self.manifest["runs"].items()]

    @property
    def recipe(self) -> dict[str, Any]:
        """Return `sources`, `weights` and `mean` of several runs, nothing for a single one."""
        path = self.folder / RECIPE
        return read_own_yaml(path, "make the bundle again") if path.is_file() else {}

    @property
    def parts(self) -> list[Path]:
        """Return the bundles of other runs whose rows are handed in, too."""
        return sorted((self.folder / PARTS).iterdir()) if (self.folder / PARTS).is_dir() else []

    def _where_data_is(self, data: Path | None) -> list[str]:
        """Return the word of a config that names the folder of the competition's files, if it is known better."""
        name = self.manifest["competition"]
        mounted = [KAGGLE / "input" / str(name), KAGGLE / "input" / "competitions" / str(name)]
        found = [path for path in ([data] if data else mounted) if path.is_dir()]
        if data and not found:
            raise CompetitionError(f"{data}: no such folder; expected that of sample_submission.csv and test images")
        return [f"data.dir={json.dumps(str(found[0]))}"] if found else []  # in quotes: a value is read as YAML

    def _member(self, name: str, about: dict[str, list[str]], words: list[str]) -> Member:
        weights = self.folder / RUNS / name
        config = load_config([weights / CONFIG], words)
        return Member(name, config, about["classes"], about["trainings"], weights, self.folder / CHECK / name)

    def reproduce(self) -> tuple[int, float]:
        """Make the stored predictions again; return how many there are and the largest difference.

        Raises CompetitionError if a difference is over the tolerance: this machine would not predict what was scored.
        """
        each = [(path, gap) for member in self.members for path, gap in _differences(member)]
        for path, gap in each:
            if not gap <= TOLERANCE:
                name = path.relative_to(self.folder).as_posix()
                raise CompetitionError(
                    f"{name}: predicted anew on this machine, an image differs by {gap:.4f} from what was scored (at "
                    f"most {TOLERANCE} is allowed): other weights, another version of a library, another way to read "
                    "images?"
                )
        return len(each), max(gap for _, gap in each)

    def predict(self, folder: Path, asked: np.ndarray | None = None) -> tuple[Predictions, list[str]]:
        """Predict the test images, or those that are asked for, into a folder; return the file, and a line for every
        image that cannot be read."""
        files, lines, found = [], [], self._look(folder, asked)
        for member in self.members:
            files.append(folder / f"{member.name}.npz")
            looks = {what: found[run] for run, each in member.config.data.stages.items() for what in each}
            lines += _predict(member, looking_by(member.config, looks), files[-1], asked)
        if not self.recipe:
            return Predictions(files[0]), lines
        if STACK in self.recipe:
            return self._stacked([Predictions(path) for path in files], folder / "all runs.npz"), lines
        each = [Ranks(Predictions(path)) if self.recipe["mean"] == "rank" else Predictions(path) for path in files]
        weights = [weight for weight in self.recipe["weights"] if weight > 0]
        average_predictions(each, folder / "all runs.npz", self.config, unless_equal(weights))
        return Predictions(folder / "all runs.npz"), list(dict.fromkeys(lines))

    def _look(self, folder: Path, asked: np.ndarray | None) -> dict[str, Path]:
        """Let each stage say what the images have, crops and maps; return by run the folder that it writes."""
        wanted = wanted_of(member.config.data for member in self.members)
        images = {run: dict[str, None]() for run in wanted}
        for member in self.members:
            for run in member.config.data.stages:
                ids = images_of_test(member.config, member.classes) if asked is None else asked
                images[run].update(dict.fromkeys(ids))
        return {
            run: let_find(self.folder / STAGES / run, what, self.config.data.dir, images[run], folder)
            for run, what in wanted.items()
        }

    def _stacked(self, sources: list[Predictions], path: Path) -> Predictions:
        stack = Stack.read(self.recipe[STACK])
        apply_stack(stack, sources, texts_of_test(self.config, list(stack.columns), sources[0].image_ids), path)
        return Predictions(path)


def infer(folder: Path, data: Path | None = None, output: Path = Path(SUBMISSION)) -> Path:
    """Prove a bundle, predict the test images and write the submission; say on the way what happens.

    `data` is the folder of the competition's files; Kaggle's own is found. Raises CompetitionError, before anything is
    predicted, where the bundle does not reproduce what it was scored with.
    """
    bundle = Bundle(folder, data)
    refuse_packed(bundle.config.data)
    print(f"{folder}: whole, {len(bundle.manifest['files'])} files", flush=True)
    number, gap = bundle.reproduce()
    print(f"{number} stored predictions made again: largest difference {gap:.4f}, {TOLERANCE} allowed", flush=True)
    with tempfile.TemporaryDirectory() as workspace:
        others = [_submission_of(part, bundle.config.data.dir, Path(workspace)) for part in bundle.parts]
        stored, lines = bundle.predict(Path(workspace))
        for line in lines:
            print(f"warning: {line}", flush=True)
        written = Path(workspace) / SUBMISSION if others else output
        with checked_submission(written, bundle.config, stored):
            pass
        if others:
            join_submissions([written, *others], bundle.config, output)
            print(
                f"{output}: all rows, those of {', '.join(part.name for part in bundle.parts)} among them", flush=True
            )
    print(f"{output}: {len(stored)} images, checked", flush=True)
    return output


def _submission_of(part: Path, data: Path, workspace: Path) -> Path:
    """Let another bundle write its rows."""
    folder = workspace / f"part {part.name}"
    folder.mkdir()
    let_work(part, data, folder)
    return folder / SUBMISSION


def _differences(member: Member) -> Iterator[tuple[Path, float]]:
    """Yield how far each stored prediction is from the one that is made here."""
    from competition.prediction.ensemble import predict_stream

    task, data = Task(member.config.task), member.config.data.model_copy(update={"num_workers": 0})
    config = member.config.model_copy(update={"data": data})
    for path in sorted(member.check.glob("*.npz")):
        if path.name == UNSEEN:
            continue
        stored = Predictions(path)
        ensemble = member.ensemble(path.stem if path.stem in member.trainings else None)
        found = predict_stream(ensemble, _kept_dataset(config, path, stored.image_ids))
        for (_, _, before), (_, _, _, now) in zip(stored, found, strict=True):
            yield path, task.decode.difference(now, before)


def _kept_dataset(config: Config, path: Path, names: list[str]) -> "ImageDataset":
    """Return the images that a bundle keeps with the predictions of a file, with what the networks were told of them;
    of groups their images."""
    from competition.data.dataset import GivenSources
    from competition.data.series_dataset import SeriesDataset

    members, ids = None, names
    if is_series(config):
        members = json.loads(path.with_suffix(MEMBERS).read_text(encoding="utf-8"))
        ids = [image_id for name in names for image_id in members[name]]
    columns = config.data.columns
    told = None if columns is None else read_values(path.with_suffix(COLUMNS), columns, ids)
    folder = path.parent / IMAGES / path.stem
    copied = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
    sources = [copied_source(config.data, folder, names) for names in copied]
    images = GivenSources(one_by_one(config), np.array(ids, dtype=object), sources, told)
    if members is None:
        return images
    return SeriesDataset(config, np.array(names, dtype=object), images=images, members=members)


def _predict(member: Member, config: Config, path: Path, asked: np.ndarray | None) -> list[str]:
    """Predict the test images, or those that are asked for, with all networks of a run; return a line for every image
    that cannot be read."""
    from competition.bundle.unreadable_images import forgiving
    from competition.prediction import ensemble as inference
    from competition.training.devices import inference_devices

    task = Task(config.task)
    ids = task.submission.read_test_ids(config, member.classes) if asked is None else asked
    dataset, ensemble = forgiving(config, ids), member.ensemble()
    devices = inference_devices(config)
    seen = f"{len(ids)} images x {len(ensemble.networks)} networks x {len(ensemble.views)} views of {member.name}"
    print(f"{seen} on {', '.join(map(str, devices))}", flush=True)
    unseen: Prediction = Predictions(member.check / UNSEEN)[0]
    with PredictionWriter(path.parent) as writer:
        for index, (image_id, height, width, prediction) in enumerate(
            inference.predict_stream(ensemble, dataset, devices)
        ):
            is_seen = not dataset.is_unreadable(index)
            if not is_seen:
                dataset.refuse_too_many()
            writer.add(image_id, height, width, prediction if is_seen else task.decode.unseen(prediction, [unseen]))
        writer.finish(path, member.classes, config.tta)
    return [f"{dataset.reason(index)}: answered without having seen it" for index in dataset.unreadable()]

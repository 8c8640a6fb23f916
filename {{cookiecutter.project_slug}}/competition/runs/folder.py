"""A run's folder: outputs/<run>/ with fold0/, fold1/, ... and what is made of them. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.config.loading import config_differences, dump_config, dump_yaml, load_config, parse_yaml
from competition.config.settings import Checkpoint, Config
from competition.files.crops import folder_of_stage
from competition.files.joined_tables import table_files
from competition.files.maps import stage_files
from competition.support.atomic_files import marked, read_own_text, read_rows, replacing
from competition.support.errors import CompetitionError
from competition.support.paths import PACKAGE, here

CONFIG, OOF, TEST, SUBMISSION = "config.yaml", "oof.npz", "test.npz", "submission.csv"
POSTPROCESS, CV, VIEWS, METRICS = "postprocess.yaml", "cv.csv", "tta.csv", "metrics.csv"
LATEST = "latest.pt"
BEGUN_BY = ".tables"  # its note tells by which tables the training of a folder began
CHOSEN = {"soup": "soup.pt", "unaveraged": "unaveraged.pt"}  # what is written of weights that were chosen at the end
BUNDLE = "bundle"  # a folder
SWEEPS, JOURNAL = "sweeps", "journal.jsonl"  # the folder of all sweeps, and what each notes of its trials
CHOICE = "weights.csv"  # which weights were compared at the end, and which of them predict
DONE = "latest.safetensors"  # what a training without validation ends with
# Keys that may differ between two starts of one run: they say what becomes of predictions ...
AFTER_TRAINING = (
    "tta",
    "inference",
    "decode",
    "metrics",
    "host_metric",
    "metric_files",
    "format.submission",
    "data.sample_submission",
    "data.test_images",
    "data.test_image_file",
    "data.test_csv",
)
# How images are read: networks that predict together see them in one way, and as they learnt them.
READ_BY = (
    *("data.channels", "data.classes", "data.columns", "data.dicom_window", "data.exif_orientation"),
    *("data.image_size", "data.mean", "data.stack", "data.std", "data.window"),
    *("model.join", "model.join_columns", "model.volume"),
)
# ... or where it computes, not what is trained.
ELSEWHERE = (
    "fold",
    "folds",
    "seeds",
    "logger",
    "slurm",
    "data.near_duplicates",
    "data.num_workers",
    "data.cache",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.max_time",
)


@dataclass(frozen=True)
class Run:
    """A run that has been trained, at least in part.

    `config` has the thresholds that tuning found, `untuned` those it was trained with.
    """

    folder: Path
    config: Config
    untuned: Config

    @classmethod
    def open(cls, name: str, overrides: list[str] | None = None) -> "Run":
        """Find a run by its name or folder; its config is that of its first training, with overrides."""
        if name.endswith((".yaml", ".yml")):
            raise CompetitionError(
                f"{name}: is a config; expected the name of a run that was trained with it, as {Path(name).stem}"
            )
        candidates = [here().outputs / name, Path(name)]
        for folder in candidates:
            configs = sorted(folder.glob(f"fold*/{CONFIG}"), key=lambda path: _in_order(path.parent))
            if configs:
                tuned = [path for path in [folder / POSTPROCESS] if path.is_file()]
                read_own_text(configs[0], _train_again(configs[0].parent))  # of one that was cut half would be missed
                for path in tuned:
                    read_own_text(path, f"delete it and make it again with `competition tune {folder.name}`")
                untuned = load_config(configs[:1], overrides)
                return cls(folder, load_config([configs[0], *tuned], overrides), untuned)
        known = ", ".join(sorted({str(p.parent.parent.name) for p in here().outputs.glob(f"*/fold*/{CONFIG}")}))
        raise CompetitionError(f"{candidates[0]}: no such run; runs here: {known or 'none'}; train one first")

    def refuse_other_reading(self) -> None:
        """Raise CompetitionError where overrides have images read otherwise than its networks have learnt them."""
        own, asked = (one.model_dump(mode="json") for one in (Run.open(str(self.folder)).untuned, self.untuned))
        if found := _read_otherwise(own, asked):
            raise CompetitionError(
                f"{found[0]}: the networks of {self.folder} have learnt images as its config has them read; train "
                "another run with it (name=...)"
            )

    def trainings(self) -> list[Path]:
        """Return the folders of all trainings, by fold and seed, whether they are done or not."""
        return sorted((path.parent for path in self.folder.glob(f"fold*/{CONFIG}")), key=_in_order)

    def finished(self) -> list[Path]:
        """Return the folders of the trainings that are done, by fold and seed; raise CompetitionError if none is."""
        finished = [folder for folder in self.trainings() if is_finished(folder)]
        if not finished:
            raise CompetitionError(f"{self.folder}: no fold has been trained to its end; run `competition train` first")
        return finished

    def left_out(self) -> list[str]:
        """Return a line for each training that has not come to its end, and so takes no part in what the run says."""
        return [
            f"left out: {folder} has no {OOF}, its training has not come to its end; `competition run` or `train "
            "--resume` goes on"
            for folder in self.trainings()
            if not is_finished(folder)
        ]

    def out_of_fold_files(self) -> list[Path]:
        """Return the oof.npz files there are, by fold and seed; a training on all images has none."""
        return [folder / OOF for folder in self.finished() if (folder / OOF).is_file()]

    def test_sources(self) -> list[Path]:
        """Return what test.npz is made from."""
        weights = [one / weights_name(one, self.config.checkpoint) for one in self.finished()]
        data, form = self.config.data, self.config.format
        named = [data.sample_submission, data.test_csv, form.test_csv if getattr(form, "group", None) else None]
        tables = [file for name in dict.fromkeys(named) if name for file in table_files(data.dir / name)]
        return [*tables, *stage_files(data), *weights]

    def bundle_sources(self) -> list[Path]:
        """Return what a bundle is made from, this package included."""
        sources = [self.folder / TEST, self.folder / POSTPROCESS, *self.folder.glob(f"fold*/{CONFIG}")]
        sources += self.folder.glob("fold*/*.safetensors")
        # Bundles of other runs, by which this one looks, come in whole.
        sources += [folder_of_stage(run) / BUNDLE / "manifest.json" for run in self.config.data.stages]
        return [*sources, *(path for path in PACKAGE.rglob("*.*") if path.suffix in (".py", ".yaml"))]


def best_name(settings: Checkpoint) -> str:
    """Return the file name of the best weights: a monitored loss gives best_loss.pt, a score best_score.pt."""
    return "best_loss.pt" if settings.monitor.endswith("loss") else "best_score.pt"


def weights_name(folder: Path, settings: Checkpoint) -> str:
    """Return the file name of the checkpoint in a training's folder that prediction uses."""
    row = chosen_weights(folder, settings)
    chosen = row["weights"] if row else settings.predict_with
    if is_of_all(folder) or chosen == "latest":
        return LATEST
    return CHOSEN[chosen] if row and chosen in CHOSEN else best_name(settings)


def chosen_weights(folder: Path, settings: Checkpoint) -> dict[str, str] | None:
    """Return the row of weights.csv of the weights that predict; None where there was no choice, or not yet."""
    if not settings.chooses:
        return None
    way_on = f"delete {folder / OOF} and it, and go on with `competition train --resume`"
    rows = read_rows(folder / CHOICE, way_on, ("predicts",), texts=("weights", "epochs"))
    return next((row for row in rows if float(row["predicts"])), None)


def is_of_all(folder: Path) -> bool:
    """Return whether a training is on all images: nothing is validated, so nothing is best."""
    return folder.name.startswith("foldall")


def is_finished(folder: Path) -> bool:
    """Return whether a training has come to its end."""
    # A training that validates may have exported such weights before its predictions.
    return (folder / OOF).is_file() or (is_of_all(folder) and (folder / DONE).is_file())


def fold_of(training: str) -> str:
    """Return the fold that the name of a training's folder tells: fold0 of fold0 and fold0_seed1."""
    return training.partition("_")[0]


def _in_order(folder: Path) -> tuple[float, int]:
    """Sort fold2 before fold10 and foldall, and of a fold its first seed before others."""
    fold, _, seed = folder.name.removeprefix("fold").partition("_seed")
    return float(fold) if fold.isdigit() else float("inf"), int(seed) if seed.isdigit() else -1


def read_own_yaml(path: Path, way_on: str) -> dict[str, Any]:
    """Read a YAML file of this project's own; raise CompetitionError, which ends in `way_on`, where it was cut."""
    text = read_own_text(path, way_on)
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise CompetitionError(f"{path}: damaged ({str(error)[:200]}); {way_on}") from None
    if not isinstance(values, dict):
        raise CompetitionError(f"{path}: damaged (it has no `key: value` lines); {way_on}")
    return values


def read_kept_config(folder: Path) -> dict[str, Any]:
    """Read the config that a training was begun with; raise CompetitionError where it was cut."""
    way_on = _train_again(folder)
    values = read_own_yaml(folder / CONFIG, way_on)
    if absent := [key for key in ("name", "task", "fold", "seed", "data") if key not in values]:
        raise CompetitionError(f"{folder / CONFIG}: damaged (it has no key {absent[0]!r}); {way_on}")
    return values


def _train_again(folder: Path) -> str:
    return f"put back a copy of it, or delete {folder} and train this fold again"


def read_metrics(folder: Path, *needed: str) -> list[dict[str, str]]:
    """Read a training's metrics.csv, a mapping an epoch; none where there is no file."""
    way_on = "delete it: only its curves and times are lost"
    return read_rows(folder / METRICS, way_on, ("epoch", *needed))


def remember_config(folder: Path, config: Config) -> None:
    """Write the resolved config into a fold's folder; refuse a folder that holds another config's training.

    A finished training that is to have more epochs counts as not finished from here on. Its predictions go first: a
    crash before the config is written leaves a training that did not end, whose latest.pt both configs go on from.
    """
    refuse_changed_config(folder, config)
    if is_finished(folder):
        for name in (OOF, DONE):
            (folder / name).unlink(missing_ok=True)
    (folder / CHOICE).unlink(missing_ok=True)  # made anew at the end, perhaps of more epochs
    _write_config(folder, config)


def remember_what_follows(folder: Path, config: Config, names: Sequence[str] = AFTER_TRAINING) -> None:
    """Bring the configs of all finished trainings of a run up to date in what becomes of their predictions."""
    new = config.model_dump(mode="json")
    for path in folder.glob(f"fold*/{CONFIG}"):
        old = read_kept_config(path.parent)
        changed = [name for name in names if _value(old, name) != _value(new, name)]
        if not changed or not is_finished(path.parent):
            continue
        for name in changed:
            section, _, key = name.rpartition(".")
            (_value(old, section) if section else old)[key] = _value(new, name)
        with replacing(path) as temporary:
            temporary.write_text(marked(dump_yaml(old)), encoding="utf-8")


def _value(config: dict[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _write_config(folder: Path, config: Config) -> None:
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(marked(dump_config(config)), encoding="utf-8")


def refuse_start(config: Config, *, resume: bool) -> None:
    """Raise CompetitionError if a config's training is done, or would begin anew where another did not end.

    One that is done may go on if it is to have more epochs, and nothing else differs.
    """
    folder = config.fold_folder
    if not has_begun_any(config.run_folder) and (unused := config.unused()):
        raise CompetitionError("\n".join(unused.values()))
    _refuse_other_reading(config)
    more, is_done = more_epochs(folder, config), is_finished(folder)
    if is_done and more is None:
        raise CompetitionError(f"{folder}: is trained already; delete the folder, or give this run another name=...")
    if is_done and not (folder / LATEST).is_file():
        raise CompetitionError(
            f"{folder / LATEST}: no such file, from which the training would go on to {more} epochs; give this run "
            "another name=..."
        )
    if (folder / LATEST).is_file() and not resume:
        what = f"a training that ended, and is to have {more} epochs now" if is_done else "a training that did not end"
        raise CompetitionError(f"{folder / LATEST}: {what}; go on with --resume, or delete {folder} to start anew")


def _refuse_other_reading(config: Config) -> None:
    """Raise CompetitionError where another training of the run reads images otherwise: all of them predict together."""
    new = config.model_dump(mode="json")
    for path in sorted(config.run_folder.glob(f"fold*/{CONFIG}")):
        if path.parent == config.fold_folder or not has_begun(path.parent):
            continue
        if found := _read_otherwise(_read_config(path), new):
            raise CompetitionError(
                f"{path}: this training of the same run reads images otherwise ({'; '.join(found[:5])}), and all of a "
                f"run predict together; give this one another name (name=...) or delete {path.parent}"
            )


def _read_otherwise(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List what of two configs has images read otherwise."""
    return [change for change in config_differences(old, new) if is_among(change, READ_BY)]


def more_epochs(folder: Path, config: Config) -> int | None:
    """Return how many epochs a fold is to have where that is all that is new, and more than it was begun with."""
    return _more_epochs(_read_config(folder / CONFIG), config) if has_begun(folder) else None


def _more_epochs(old: dict[str, Any], config: Config) -> int | None:
    key = "trainer.max_epochs"
    before, now = _value(old, key), config.trainer.get("max_epochs")
    is_more = isinstance(before, int) and isinstance(now, int) and 0 < before < now
    return now if is_more and [change.partition(":")[0] for change in _changes(old, config)] == [key] else None


def refuse_changed_config(folder: Path, config: Config) -> None:
    """Raise CompetitionError if a fold's folder holds a config that differs, but for keys that may."""
    path = folder / CONFIG
    if not has_begun(folder):
        return
    old = _read_config(path)
    if (changes := _changes(old, config)) and _more_epochs(old, config) is None:
        raise CompetitionError(
            f"{path}: this folder was trained with another config ({'; '.join(changes[:5])}); give this one "
            f"another name (name=...) or delete {folder}"
        )


def has_begun_any(run: Path) -> bool:
    """Return whether there is something to protect of any training of a run: others follow by the same config."""
    return any(has_begun(path.parent) for path in run.glob(f"fold*/{CONFIG}"))


def has_begun(folder: Path) -> bool:
    """Return whether there is something to protect; a start that failed leaves none."""
    return (folder / CONFIG).is_file() and (is_finished(folder) or (folder / LATEST).is_file())


def _read_config(path: Path) -> dict[str, Any]:
    """Read the config of a training, with today's defaults for keys that were not known then: those change nothing."""
    kept = read_kept_config(path.parent)  # says so where it was cut
    try:
        return load_config([path]).model_dump(mode="json")
    except CompetitionError:  # it has a key, or a value, that is not known any more
        return kept


def _changes(old: dict[str, Any], config: Config) -> list[str]:
    """List what a training would do otherwise by another config."""
    changes = config_differences(old, config.model_dump(mode="json"))
    return [change for change in changes if not is_among(change, (*AFTER_TRAINING, *ELSEWHERE))]


def is_among(change: str, names: Iterable[str]) -> bool:
    """Return whether a line of `config_differences` is of one of these keys, or of a section's."""
    key = change.partition(":")[0]
    return any(key == name or key.startswith(f"{name}.") for name in names)

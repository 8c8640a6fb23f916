"""`competition bundle RUN`: one folder with all that an offline notebook needs to predict and to prove that it can."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from competition.bundle.manifest import (
    CHECK,
    COLUMNS,
    IMAGES,
    MANIFEST,
    MEMBERS,
    NOTEBOOK,
    PARTS,
    RECIPE,
    RUNS,
    SCRIPT,
    SOURCES,
    STAGES,
    UNSEEN,
    WHEELS,
    overrides_of,
    write_manifest,
    write_metadata,
)
from competition.bundle.offline import Bundle
from competition.bundle.packed_images import describe_packed
from competition.bundle.stages import copy_stages, whole_bundle
from competition.bundle.wheels import download_wheels, missing_packages
from competition.config.loading import dump_config, dump_yaml
from competition.config.settings import Config, Logger
from competition.files.item_source import test_source, train_source
from competition.files.maps import stage_files
from competition.files.series import images_of_groups, is_series
from competition.files.table_columns import test_values, train_values, write_values
from competition.prediction.ensemble import inference_precision
from competition.prediction.stacking import packages_of
from competition.prediction.stored import TOLERANCE, Predictions, PredictionWriter, how_predicted
from competition.runs.blend_recipe import STACK, members_of, read_recipe
from competition.runs.folder import BUNDLE, CONFIG, POSTPROCESS, TEST, Run
from competition.runs.provenance import describe_other_tables
from competition.scoring.tune import describe_staleness
from competition.submission.join import folder_of
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom, changed_sources, is_up_to_date
from competition.support.locks import holding
from competition.support.paths import PACKAGE, competition_in
from competition.support.spread import spread
from competition.tasks.contract import Prediction, Task
from competition.training.checkpoint import exported_path, exported_weights, link_or_copy, weights_to_use

CHECKED_ROWS = 8  # stored predictions of a run that its bundle makes again, shared among the trainings
START = """import sys

{place}
sys.dont_write_bytecode = True  # nothing is written into the bundle
sys.path.insert(0, str(BUNDLE))

from competition.bundle.infer_script import {function}

{function}(BUNDLE{arguments})
"""
DOCUMENTATION = (
    '"""Predict the test images without a network: python infer.py [FOLDER OF THE COMPETITION\'S FILES]\n\n'
    "Behind the folder, a csv file of image_id and the word crops let a run of boxes or masks write crops.csv of\n"
    'these images instead; the word maps lets one of masks write maps/."""\n\n'
)
# Python looks for modules beside a script first, and would take one that was added there for its own.
HOME = """if not sys.flags.safe_path:
    del sys.path[0]
import hashlib, json, os, signal, typing  # noqa: E401, E402, F401
from pathlib import Path  # noqa: E402

BUNDLE = Path(__file__).resolve().parent"""
IN_SCRIPT = {
    "place": HOME,
    "function": "main",
    "arguments": ", *map(Path, sys.argv[1:])",
}
# A notebook has no file to start from; Kaggle puts data sets one to three folders deep.
FIND = f"""from pathlib import Path

inputs = Path("/kaggle/input")
found = [path.parent for depth in ("*", "*/*", "*/*/*") for path in inputs.glob(depth + "/infer.py")]
found = [folder for folder in found if folder.parent.name not in ("{PARTS}", "{STAGES}")]  # those within a bundle
wanted = "attach its data set, and no other bundle"
assert len(found) == 1, f"expected one bundle below {{inputs}}, found {{found}}: {{wanted}}"
BUNDLE = found[0]"""
IN_NOTEBOOK = {"place": FIND, "function": "infer", "arguments": ""}


def make_bundle(
    run: Run, overrides: list[str] | None = None, *, with_wheels: bool = True, join: Sequence[str] = ()
) -> tuple[Path, list[str]]:
    """Write outputs/<run>/bundle/ anew, with the bundles of the runs `join`, whose rows come in, too; return it, and
    warnings and how well it reproduces what was scored.

    An earlier one stands until this one is whole and has proved itself. Of a blend, `overrides` hold for its runs, too.
    Raises CompetitionError where something that it needs has not been made yet, where it would not predict what was
    scored, or another process writes to the run's folder.
    """
    building, old = (run.folder / f".{BUNDLE}.{name}" for name in ("tmp", "old"))
    with holding(run.folder, "bundle", (building.name,)):
        _put_back(old, run.folder / BUNDLE)
        try:
            _export_weights(run, overrides or [])
            made_from = MadeFrom.now(run.folder / BUNDLE / MANIFEST, run.bundle_sources())
            lines = _build(run, overrides or [], building, with_wheels=with_wheels, join=join)
            lines.append(_prove(run, building))
            if (run.folder / BUNDLE).exists():
                (run.folder / BUNDLE).rename(old)
            building.rename(run.folder / BUNDLE)
            made_from.note()
        finally:
            shutil.rmtree(building, ignore_errors=True)
            _put_back(old, run.folder / BUNDLE)
    return run.folder / BUNDLE, lines


def _export_weights(run: Run, overrides: list[str]) -> None:
    """Write what a bundle is made from and nobody has written yet, before that is looked at."""
    for member in members_of(run, overrides):
        for training in member.finished():
            weights = weights_to_use(training, member.config.checkpoint)
            if not exported_path(weights).is_file():
                exported_weights(weights)


def _put_back(old: Path, bundle: Path) -> None:
    """Give an earlier bundle its name again, which one that was killed had moved away; no longer needed, it goes."""
    if old.exists() and not bundle.exists():
        old.rename(bundle)
    shutil.rmtree(old, ignore_errors=True)


def _build(run: Run, overrides: list[str], folder: Path, *, with_wheels: bool, join: Sequence[str]) -> list[str]:
    """Write everything into a folder; return warnings."""
    for bundle in (whole_bundle(folder_of(name)) for name in join):
        shutil.copytree(bundle, folder / PARTS / bundle.parent.name)
    recipe, members = read_recipe(run.folder), members_of(run, overrides)
    runs = {member.folder.name: _write_member(member, folder) for member in members}
    stages = copy_stages(members, folder, {name: about["classes"] for name, about in runs.items()})
    _write_config(folder / CONFIG, run)
    if (run.folder / POSTPROCESS).is_file():
        _write_thresholds(folder / POSTPROCESS, run.config)
    if recipe:
        kept = {key: recipe[key] for key in ("sources", "weights", "mean", STACK) if key in recipe}
        (folder / RECIPE).write_text(dump_yaml(kept), encoding="utf-8")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    _write_scripts(folder)
    python = run.config.inference.python
    more = [*_packages(members), *packages_of(recipe)]
    packages = missing_packages(PACKAGE.parent / "pyproject.toml", python, more) if with_wheels else {}
    stages += describe_packed(run.config.data)
    lines = [*stages, *_describe_age(run, members), *download_wheels(packages, folder / WHEELS, python)]
    name = competition_in(Path("pyproject.toml"))
    write_manifest(folder, runs, name, overrides)
    write_metadata(folder, run.folder.name, name)
    return lines


def _packages(members: Iterable[Run]) -> list[str]:
    """Return what runs need beside the project's own requirements: for their networks, and to read images like those
    that were predicted."""
    return sorted({package for run in members for package in [*run.config.packages, *_readers(run)]})


def _readers(run: Run) -> set[str]:
    config, stored = run.config, run.out_of_fold_files()
    image_ids = Predictions([*stored, run.folder / TEST][0]).image_ids[:1]
    if is_series(config):
        image_ids = images_of_groups(config, image_ids, of_test=not stored)[image_ids[0]][:1]
    return {
        package for one in image_ids for package in (train_source if stored else test_source)(config, one).packages()
    }


def _prove(run: Run, building: Path) -> str:
    """Let a bundle make stored predictions again before it takes the place of an earlier one; say how near it came."""
    try:
        number, gap = Bundle(building).reproduce()
    except CompetitionError as error:
        raise CompetitionError(f"{run.folder / BUNDLE}: not written anew: {error}") from None
    near = f"largest difference {gap:.4f} ({TOLERANCE} allowed)"
    return f"{run.folder / BUNDLE}: {number} stored predictions made again, {near}"


def _describe_age(run: Run, members: list[Run]) -> list[str]:
    """Warn where this bundle's submission will not be that of `submit`: of thresholds or predictions that are old."""
    lines = describe_staleness(run)
    for member in members:
        lines += describe_other_tables(member)
        test = member.folder / TEST
        if not test.is_file():
            continue
        weights = [weights_to_use(one, member.config.checkpoint) for one in member.finished()]
        if newer := changed_sources(test, [*weights, *stage_files(member.config.data)]):
            lines.append(
                f"warning: {test} is older than {newer[0]}, with which the bundle predicts; predict and submit anew, "
                f"first `competition predict {member.folder.name}`"
            )
        stored = Predictions(test)
        if not stored.is_as_asked(member.config):
            asked = how_predicted(member.config.tta, member.config.prediction_precision)
            lines.append(f"warning: {test} was predicted in the views {stored.how()}, the bundle predicts in {asked}")
    return lines


def _write_member(run: Run, folder: Path) -> dict[str, Any]:
    """Write config, weights, and stored predictions with their images; return what the manifest says of the run."""
    config, name, trainings = run.config, run.folder.name, run.finished()
    _write_config(folder / RUNS / name / CONFIG, run)
    for training in trainings:
        weights = exported_weights(weights_to_use(training, config.checkpoint))
        link_or_copy(weights, folder / RUNS / name / f"{training.name}.safetensors")
    check = folder / CHECK / name
    stored = run.out_of_fold_files()
    for path in stored:
        _write_check(config, path, check, path.parent.name, max(CHECKED_ROWS // len(stored), 1))
    if not stored:  # trained on all images: only test images are new to the networks
        _write_check(config, run.folder / TEST, check, "", CHECKED_ROWS)
    files = stored or [run.folder / TEST]
    first = Predictions(files[0])
    with PredictionWriter(check) as writer:
        writer.add("unseen", *first.sizes[0], Task(config.task).decode.unseen(first[0], _each(files)))
        writer.finish(check / UNSEEN, first.classes)
    return {"classes": list(first.classes), "trainings": [training.name for training in trainings]}


def _write_check(config: Config, path: Path, folder: Path, training: str, number: int) -> None:
    """Copy some out-of-fold predictions of a training, or test predictions (no training), and their images."""
    stored = Predictions(path)
    if stored.views != config.tta:
        found, asked = map(how_predicted, (stored.views, config.tta))
        raise CompetitionError(
            f"{path}: was predicted in the views {found}, while tta asks for {asked}; make it again with "
            f"`competition predict {config.name}`"
        )
    name, source_of = (training, train_source) if training else ("test", test_source)
    path, chosen = folder / f"{name}.npz", list[str]()
    with PredictionWriter(folder) as writer:
        for row in spread(len(stored), number):
            writer.add(stored.image_ids[row], *stored.sizes[row], stored[row])
            chosen.append(stored.image_ids[row])
        writer.finish(path, stored.classes, stored.views)
    image_ids = chosen
    if is_series(config):
        members = images_of_groups(config, chosen, of_test=not training)
        path.with_suffix(MEMBERS).write_text(json.dumps(members), encoding="utf-8")
        image_ids = [image_id for group in members.values() for image_id in group]
    images = folder / IMAGES / name
    images.mkdir(parents=True, exist_ok=True)
    copied = [source_of(config, one).copy_to(images, str(number)) for number, one in enumerate(image_ids)]
    (images / SOURCES).write_text(json.dumps(copied), encoding="utf-8")
    if config.data.columns is not None:
        values = (train_values if training else test_values)(config, image_ids)
        write_values(path.with_suffix(COLUMNS), config.data.columns, image_ids, values)


def _each(files: list[Path]) -> Iterator[Prediction]:
    return (prediction for path in files for _, _, prediction in Predictions(path))


def _write_config(path: Path, run: Run) -> None:
    """Write what prediction needs of a run's config: nothing of the hub, of Lightning, or of this machine's folders."""
    config = run.untuned
    of_training: dict[str, Any] = {
        "folds": None,
        "split": "stratified",
        "group": None,
        "group_file": None,
        "group_pattern": None,
    }
    of_training |= {"pseudo": None, "extra": [], "weight": None, "weights_csv": None}
    for key in ("crop", "maps"):
        if (look := getattr(config.data, key)) is not None and look.run is not None:
            of_training[key] = look.model_copy(update={"run": Path(look.run).name})  # as it is called in stages/
    update = {
        "data": config.data.model_copy(update=of_training),
        "model": config.model.model_copy(update={"pretrained": False}),
        "trainer": {},
        "inference": config.inference.model_copy(update={"precision": inference_precision(config)}),
        "logger": Logger(),
        "host_metric": None,
    }
    values = yaml.safe_load(dump_config(config.model_copy(update=update)))
    values["data"]["dir"] = "data"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_yaml(values), encoding="utf-8")


def _write_thresholds(path: Path, config: Config) -> None:
    """Write the thresholds that `submit` would use: those of tuning, and over them those that were given by hand."""
    values = {"decode": config.decode.model_dump(mode="json")}
    path.write_text(dump_yaml(values), encoding="utf-8")


def _write_scripts(folder: Path) -> None:
    (folder / SCRIPT).write_text(DOCUMENTATION + START.format(**IN_SCRIPT), encoding="utf-8")
    cell = {"cell_type": "code", "execution_count": None, "id": "infer", "metadata": {}, "outputs": []}
    notebook = {
        "cells": [cell | {"source": START.format(**IN_NOTEBOOK)}],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / NOTEBOOK).write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")


def is_joined(opened: Run) -> bool:
    """Return whether the run's bundle hands in the rows of other runs, too, by `bundle --join`."""
    return (opened.folder / BUNDLE / PARTS).is_dir()


def is_bundled(opened: Run) -> bool:
    """Return whether the run's bundle is newer than all that it was made from, this package included, and is of the
    run's own config."""
    bundle = opened.folder / BUNDLE
    if overrides_of(bundle) != []:
        return False
    if (bundle / POSTPROCESS).is_file() != (opened.folder / POSTPROCESS).is_file():
        return False
    if is_joined(opened):
        return False  # whether the bundles of other runs are up to date is not known here
    python = opened.config.inference.python
    more = [*_packages([opened]), *packages_of(read_recipe(opened.folder))]
    needed = missing_packages(PACKAGE.parent / "pyproject.toml", python, more)
    if needed and not (bundle / WHEELS).is_dir():
        return False  # there was no network
    return is_up_to_date(bundle / MANIFEST, opened.bundle_sources())

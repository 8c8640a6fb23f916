"""What a blend was made of, as its blend.yaml tells: runs, weights, and the predictions they had then. No torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from competition.runs.folder import OOF, TEST, Run, read_own_yaml
from competition.support.errors import CompetitionError
from competition.support.freshness import fingerprint

BLEND, BY_FOLD, FIT, FOLDERS, FILES = "blend.yaml", "weights_by_fold", "fit", "folders", "files"
STACK = "stack"  # what stands for a mean where a model was fitted, and the key that it stands under
Mean = Literal["mean", "rank"]


def refuse_blend(folder: Path) -> None:
    """Raise CompetitionError if a run is a blend, which has no networks of its own."""
    if sources := blend_sources(folder):
        raise CompetitionError(
            f"{folder}: is a blend of {', '.join(sources)} and has no networks; predict with those, then "
            f"`competition {_verb(read_recipe(folder))} {' '.join(sources)} --name {folder.name}`"
        )


def blend_sources(folder: Path) -> list[str]:
    """Return the names of the runs that a blend is made of; none for another run."""
    return read_recipe(folder).get("sources", [])


def source_folders(folder: Path) -> list[Path]:
    """Return the folders of the runs that a blend is made of; none for another run."""
    return [Path(os.path.normpath(folder.parent / one)) for one in read_recipe(folder).get(FOLDERS, [])]


def counted_sources(folder: Path) -> list[Path]:
    """Return the folders of the runs that have a weight in a blend; none for another run."""
    weights = read_recipe(folder).get("weights", [])
    # Earlier versions did not write the folders.
    return [source for source, weight in zip(source_folders(folder), weights, strict=False) if weight > 0]


def refuse_stale_blend(folder: Path) -> None:
    """Raise CompetitionError if a run that counts in a blend has other predictions now than those that were blended."""
    for source in counted_sources(folder):
        Run.open(str(source))  # names the one that is gone
    if changed := _changed_files(folder):
        raise CompetitionError(_is_stale(folder, changed[0]))


def describe_stale_blend(folder: Path) -> list[str]:
    """Warn where a run that counts in a blend was predicted anew since; one that was deleted says nothing."""
    return [f"warning: {_is_stale(folder, path)}" for path in _changed_files(folder) if path.is_file()][:1]


def read_recipe(folder: Path) -> dict[str, Any]:
    """Read what a blend was made of: `sources`, `weights`, `mean`, ...; nothing for another run."""
    path = folder / BLEND
    if not path.is_file():
        return {}
    way_on = f"delete {folder} and blend the runs again with `competition submit RUN RUN`"
    values = read_own_yaml(path, way_on)
    if absent := [key for key in ("sources", "weights", "mean") if key not in values]:
        raise CompetitionError(f"{path}: damaged (it has no key {absent[0]!r}); {way_on}")
    return values


def beside(source: Path, folder: Path) -> str:
    """Return a run's folder as seen from where a blend's lies: both may be moved together."""
    return Path(os.path.relpath(source, folder.parent)).as_posix()


def fingerprints(folder: Path) -> dict[str, str]:
    """Return checksums of a run's predictions, of test images and out-of-fold, by their names in its folder."""
    files = [path for path in (folder / TEST, *sorted(folder.glob(f"fold*/{OOF}"))) if path.is_file()]
    return {path.relative_to(folder).as_posix(): fingerprint(path) for path in files}


def _changed_files(folder: Path) -> list[Path]:
    """Return the files of the runs that count which are not those that were blended, or are gone, or new."""
    changed, files = [], read_recipe(folder).get(FILES, {})
    for source in counted_sources(folder):
        before, now = files.get(beside(source, folder), {}), fingerprints(source)
        changed += [source / name for name in {**before, **now} if before.get(name) != now.get(name)]
    return changed


def _is_stale(folder: Path, changed: Path) -> str:
    sources = " ".join(map(str, source_folders(folder)))
    return (
        f"{changed}: is not the file that {folder} was blended of; blend anew with "
        f"`competition {_verb(read_recipe(folder))} {sources} --name {folder.name}{_options(read_recipe(folder))}`"
    )


def _verb(recipe: Mapping[str, Any]) -> str:
    return STACK if recipe["mean"] == STACK else "submit"


def _options(recipe: Mapping[str, Any]) -> str:
    """Return the options of the verb that make a blend as it was made."""
    if recipe["mean"] == STACK:
        columns = ",".join(recipe[STACK]["columns"])
        return f" --model {recipe[STACK]['model']}" + (f" --with-columns {columns}" if columns else "")
    weights = ",".join(f"{weight:g}" for weight in recipe["weights"])
    shares = "" if unless_equal(recipe["weights"]) is None else f" --weights {weights}"
    shares = " --weights fit" if BY_FOLD in recipe or FIT in recipe else shares
    return shares + (f" --mean {recipe['mean']}" if recipe["mean"] != "mean" else "")


def unless_equal(weights: list[float]) -> list[float] | None:
    """Return weights, or None where all are the same: a plain mean."""
    return weights if len(set(weights)) > 1 else None


def members_of(run: Run, overrides: list[str] | None = None) -> list[Run]:
    """Return the runs whose networks predict, one after the other: the run, or those of a blend that have a weight."""
    if not (recipe := read_recipe(run.folder)):
        return [run]
    refuse_stale_blend(run.folder)
    weighted = zip(source_folders(run.folder), recipe["weights"], strict=True)
    members = [Run.open(str(folder), overrides) for folder, weight in weighted if weight > 0]
    names = [member.folder.name for member in members]
    if twice := [member.folder for member in members if names.count(member.folder.name) > 1]:
        raise CompetitionError(f"{run.folder}: blends {twice[0]} and {twice[1]}; a bundle needs runs of distinct names")
    if nested := [member.folder.name for member in members if read_recipe(member.folder)]:
        raise CompetitionError(f"{run.folder}: blends the blend {nested[0]}; bundle a blend of its runs themselves")
    return members

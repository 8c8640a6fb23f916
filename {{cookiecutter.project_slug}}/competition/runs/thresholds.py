"""Whether a run is decoded by thresholds that somebody gave by hand, which what is stored of its scores is not of.

They stand on the command line, or were written into postprocess.yaml since tuning wrote it: beside cv.csv is noted what
it wrote. No torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from competition.config.settings import with_decode
from competition.runs.folder import CV, POSTPROCESS, Run, read_own_yaml
from competition.support.freshness import noted_beside


def thresholds_in_words(decode: Mapping[str, Any]) -> str:
    """Return thresholds as they are noted."""
    return json.dumps(decode, sort_keys=True)


def are_edited(run: Run) -> bool:
    """Return whether a run's postprocess.yaml has other values than tuning wrote there, or is gone: the config's own
    count then. Whatever the run was opened with; what earlier versions wrote is not known."""
    wrote, path = _parsed(noted_beside(run.folder / CV)), run.folder / POSTPROCESS
    if wrote is None:
        return False
    if path.is_file() and read_own_yaml(path, tune_again(run.folder)).get("decode") == wrote:
        return False
    own = Run.open(str(run.folder))
    try:
        return with_decode(own.untuned, wrote).decode != own.config.decode  # a line less may change nothing
    except ValueError:  # it wrote what is not known any more
        return False


def tune_again(folder: Path) -> str:
    """Return what cures a file of tuning that is damaged."""
    return f"delete it and make it again with `competition tune {folder.name}`"


def _parsed(noted: str) -> dict[str, Any] | None:
    try:
        values = json.loads(noted)
    except ValueError:
        return None  # there is none, or it was cut
    return values if isinstance(values, dict) else None


def is_decoded_by_hand(run: Run) -> bool:
    """Return whether a run has other thresholds than what is stored of it was scored by."""
    return run.config.decode != Run.open(str(run.folder)).config.decode or are_edited(run)


def describe_edit(run: Run) -> list[str]:
    """Say where thresholds were edited; no line where they were not."""
    if not are_edited(run):
        return []
    path = run.folder / POSTPROCESS
    found = "other thresholds stand there than tuning wrote; they decode"
    if not path.is_file():
        found = "is gone, which tuning wrote; the config's own thresholds decode"
    return [
        f"{path}: {found} what is handed in, and no score is of them; `competition tune {run.folder.name}` finds others"
    ]

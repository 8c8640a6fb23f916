"""Rooms of this package that can be taken out: who deletes one with its tests keeps a repo that works without it."""

from importlib.util import find_spec

from competition.support.errors import CompetitionError

ROOMS = ("pages", "bundle", "kaggle", "clusters", "sweeps")


def has_room(name: str) -> bool:
    """Return whether the room is there; a folder that only holds byte code of what was deleted is none."""
    found = find_spec(f"competition.{name}")
    return found is not None and found.origin is not None


def refuse_without_room(name: str, asked: str) -> None:
    """Raise CompetitionError, for who asked for it, where a room was taken out."""
    if not has_room(name):
        raise CompetitionError(f"{asked}: this repo has no room for it: competition/{name}/ was taken out")

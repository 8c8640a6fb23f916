"""Names of files by a pattern: fields in braces, `*` and `**/` for what no field tells. No torch."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePath

from competition.config.section import FIELD, IN_BRACES
from competition.support.errors import CompetitionError

STALE = 2.0  # seconds after which a folder is looked into again for a file that was not there
GLOBS = re.compile(r"(\*\*/|\*)")
EXPRESSIONS = {"**/": "(?:.*/)?", "*": "[^/]*"}


def field_names(pattern: str) -> list[str]:
    """Return the fields of a pattern, each once, without what cuts or pads them."""
    found = (FIELD.fullmatch(text) for text in IN_BRACES.findall(pattern))
    return list(dict.fromkeys(one["name"] for one in found if one))


def file_and_part(pattern: str) -> tuple[str, str]:
    """Return a pattern of files, and that of a part of a file which stands in brackets at its end: "" for none."""
    plain = IN_BRACES.sub(lambda field: "x" * len(field[0]), pattern)  # fields have brackets of their own
    at = plain.rfind("[") if plain.endswith("]") else -1
    return (pattern, "") if at < 0 else (pattern[:at], pattern[at + 1 : -1])


def filled(pattern: str, fields: Mapping[str, str]) -> str:
    """Return a pattern with its fields filled in; raise CompetitionError where the path would lead elsewhere than the
    pattern does: a field is data of others."""

    def fill(match: re.Match[str]) -> str:
        field = FIELD.fullmatch(match[1])
        assert field is not None
        return _cut_and_padded(fields[field["name"]], field)

    values = [fields[name] for name in field_names(pattern)]
    name, image_id = IN_BRACES.sub(fill, pattern), fields.get("image_id") or next(iter(values), pattern)
    refuse_elsewhere(name, pattern, image_id, values)
    return name


def refuse_elsewhere(name: str, pattern: str, image_id: str, values: Iterable[str]) -> None:
    """Raise CompetitionError where a pattern filled with `values` leads elsewhere than the pattern does."""
    plain = IN_BRACES.sub("x", pattern)
    is_elsewhere = _climbs(name) != _climbs(plain) or PurePath(name).is_absolute() != PurePath(plain).is_absolute()
    if is_elsewhere or any(PurePath(value).is_absolute() for value in values) or "\0" in name:
        raise CompetitionError(
            f"image {image_id!r}: leads out of its folder by way of {pattern!r}; expected the name of a file in it, "
            "without '..' and not beginning with '/'"
        )


def _cut_and_padded(value: str, field: re.Match[str]) -> str:
    if field["from"] is not None:
        value = value[_number(field["from"])] if field["colon"] is None else value[_slice(field)]
    if field["fill"] is None:
        return value
    aligned = {"<": value.ljust, ">": value.rjust, "^": value.center}[field["align"]]
    return aligned(int(field["width"]), field["fill"])


def _number(text: str) -> slice:
    number = int(text)
    return slice(number, number + 1 or None)


def _slice(field: re.Match[str]) -> slice:
    return slice(*(int(field[name]) if field[name] else None for name in ("from", "to")))


def _climbs(name: str) -> tuple[int, int]:
    """Return how often a path goes up, all in all and beyond where it begins."""
    return PurePath(name).parts.count(".."), PurePath(os.path.normpath(name)).parts.count("..")


def expression(pattern: str, fields: Mapping[str, str] | None = None) -> str:
    """Return the regular expression of names that follow a pattern, with a group for each field that is not known."""
    pieces, seen = [], set[str]()
    for number, piece in enumerate(IN_BRACES.split(pattern)):
        if number % 2 == 0:
            pieces.append(expression_of_text(piece))
            continue
        field = FIELD.fullmatch(piece)
        assert field is not None
        if fields is not None:
            pieces.append(re.escape(_cut_and_padded(fields[field["name"]], field)))
        elif field["from"] is not None or field["fill"] is not None:
            pieces.append("[^/]*")
        else:
            is_only_one = len(IN_BRACES.findall(pattern)) == 1
            text = ".+" if is_only_one else "[^/]+?"
            pieces.append(f"(?P={field['name']})" if field["name"] in seen else f"(?P<{field['name']}>{text})")
            seen.add(field["name"])
    return "".join(pieces)


def expression_of_text(text: str) -> str:
    """Return the regular expression of what stands between the fields of a pattern: itself, but for its `*`."""
    return "".join(EXPRESSIONS.get(part, re.escape(part)) for part in GLOBS.split(text))


def find_file(folder: Path, pattern: str, fields: Mapping[str, str]) -> Path:
    """Return the file in a folder that a filled pattern names, whether it is there or not.

    Raises CompetitionError where a pattern with `*` names several.
    """
    name = filled(pattern, fields)
    if "*" not in pattern:
        return folder / name
    whole, last = re.compile(expression(pattern, fields)), name.rpartition("/")[2]
    for is_fresh in (False, True):
        by_name = _names_below(folder, is_fresh)
        names = by_name.get(last, []) if "*" not in pattern.rpartition("/")[2] else _in_folder(by_name, name)
        found = [one for one in names if whole.fullmatch(one)]
        if found:
            break
    if len(found) > 1:
        raise CompetitionError(
            f"{folder}: {len(found)} files are named {name!r}, as {found[0]} and {found[1]}; expected one: say which "
            "in the pattern of their names, as data.image_file, or data.test_image_file of test images"
        )
    return folder / (found[0] if found else name)


def _in_folder(by_name: Mapping[str, list[str]], name: str) -> list[str]:
    """Return the files of the folder that a filled name lies in; all of them where its folders have a `*`, too."""
    place = name.rpartition("/")[0]
    return by_name.get(f"{place}/", []) if "*" not in place else [one for each in by_name.values() for one in each]


_looked: dict[Path, float] = {}  # when a folder was looked into


def _names_below(folder: Path, is_fresh: bool) -> Mapping[str, list[str]]:
    """Return the paths below a folder by their last part, and by their folder with a slash behind it."""
    now = time.monotonic()
    if is_fresh and now - _looked.get(folder, now) > STALE:
        _tree.cache_clear()
    changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
    return _tree(folder, changed)


@lru_cache(maxsize=8)
def _tree(folder: Path, changed: int) -> Mapping[str, list[str]]:
    _looked[folder] = time.monotonic()
    found = defaultdict[str, list[str]](list)
    for name in sorted(files_below(folder)):
        place, _, last = name.rpartition("/")
        found[last].append(name)
        found[f"{place}/"].append(name)
    return dict(found)


def files_below(folder: Path) -> Iterator[str]:
    """Yield the files below a folder as paths in it, without hidden ones and those in hidden folders."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is none of the competition's: what systems and notebooks leave, as `.DS_Store`
    and `.ipynb_checkpoints`. It is never an image, a class or a mask."""
    return name.startswith(".")

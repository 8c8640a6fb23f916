"""How mask files are named: which part of a path is the image's id, and which may be a class. No torch."""

import re
from collections.abc import Iterator

# A file or folder must be called a mask to be one: images also come with depths, contours and the like.
MASK_NAME = re.compile(r"mask|label|segm|annot|(?<![a-z])(seg|gt|truth)(?![a-z])", re.IGNORECASE)
WORD = r"(?:masks?|labels?|segmentations?|seg|annotations?|gt)"
# The part of a name beside the image's id or beside the word for masks.
BESIDE_ID = (
    re.compile(rf"(?P<before>\{{image_id\}}[_-](?:{WORD}[_-])?)(?P<name>.+?)(?P<after>(?:[_-]{WORD})?)", re.IGNORECASE),
    re.compile(rf"(?P<before>(?:{WORD}[_-])?)(?P<name>.+?)(?P<after>(?:[_-]{WORD})?[_-]\{{image_id\}})", re.IGNORECASE),
)
BESIDE_WORD = (
    re.compile(rf"(?P<before>{WORD}[_-])(?P<name>.+)(?P<after>)", re.IGNORECASE),
    re.compile(rf"(?P<before>)(?P<name>.+)(?P<after>[_-]{WORD})", re.IGNORECASE),
)


def is_mask_name(path: str) -> bool:
    """Return whether a path says that it is a mask's."""
    return MASK_NAME.search(path) is not None


def name_pattern(path: str, image_id: str) -> str | None:
    """Return the path with {image_id} where the id stands; none where it does not, or only as a part of another."""
    pattern, number = re.subn(
        rf"(?<![A-Za-z0-9]){re.escape(image_id)}(?![A-Za-z0-9])", lambda _: "{image_id}", path, flags=re.ASCII
    )
    return pattern if number and is_mask_name(pattern) else None


def class_patterns(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield patterns with {class_id}, each with the class that this one would be of: of a folder, or a file's name."""
    *folders, file = pattern.split("/")
    stem, dot, suffix = file.rpartition(".")
    if not dot:
        stem, suffix = file, ""
    for place, folder in enumerate(folders):
        if "{image_id}" in folder or re.fullmatch(WORD, folder, re.IGNORECASE):
            continue
        for general, name in [*_general(folder, BESIDE_WORD), *([("{class_id}", folder)] if place else [])]:
            yield "/".join([*folders[:place], general, *folders[place + 1 :], file]), name
    for general, name in _general(stem, BESIDE_ID):
        yield "/".join([*folders, f"{general}{dot}{suffix}"]), name


def _general(text: str, forms: tuple[re.Pattern[str], ...]) -> Iterator[tuple[str, str]]:
    """Yield the text with {class_id} in place of a name, and that name."""
    for form in forms:
        found = form.fullmatch(text)
        if found and not re.fullmatch(WORD, found["name"], re.IGNORECASE) and "{image_id}" not in found["name"]:
            yield f"{found['before']}{{class_id}}{found['after']}", found["name"]

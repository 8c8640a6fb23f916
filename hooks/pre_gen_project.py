"""Refuse answers that cannot become a project, before a file is written."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

FREE_TEXTS = ("project_name", "author")
FOLDER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
KAGGLE_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Windows keeps these for devices, in either case and with any extension.
WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def faults(answers: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the answers, each fault as part of one line."""
    return [
        *(fault for question in FREE_TEXTS for fault in text_faults(question, answers[question])),
        *slug_faults(answers["project_slug"]),
        *kaggle_faults(answers["kaggle_competition"]),
    ]


def text_faults(question: str, text: str) -> list[str]:
    if not text.strip():
        return [f"{question} is empty"]
    if any("\ud800" <= character <= "\udfff" for character in text):
        return [f"{question} is {text!a}: not valid Unicode"]
    return []


def slug_faults(slug: str) -> list[str]:
    if WINDOWS_DEVICE.fullmatch(slug):
        return [f"project_slug is {slug!a}: Windows refuses a folder of that name"]
    if not FOLDER_NAME.fullmatch(slug):
        rule = "up to 100 letters a-z, digits, '-', '_' and '.', a letter or digit first, no '.' last"
        return [f"project_slug is {slug!a}: a folder name is needed ({rule})"]
    return []


def kaggle_faults(slug: str) -> list[str]:
    if KAGGLE_SLUG.fullmatch(slug):
        return []
    return [f"kaggle_competition is {slug!a}: the last part of its address is needed (a-z, digits and single '-')"]


def target_faults(project: Path) -> list[str]:
    """Refuse a folder with something in it: `--overwrite-if-exists` would mix two projects."""
    if any(project.iterdir()):
        return [f"{project} exists and is not empty: nothing was changed"]
    return []


def main() -> None:
    # Answers enter as data: JSON never holds three quotes in a row, so no answer ends this string.
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    found = faults(answers) + target_faults(Path.cwd())
    if found:
        sys.exit("Error: " + "; ".join(found))


if __name__ == "__main__":
    main()

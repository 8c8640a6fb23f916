"""Jinja extension that cookiecutter loads with this template (`_extensions` in cookiecutter.json).

Cookiecutter renders every answer given on its command line as a Jinja template, and makes the project's folder
before any hook runs. So a project called `{{` ends in a traceback, one called `{{ 7*7 }}` becomes 49, and a slug
with a `/` in it leaves folders behind. Here answers are text, and bad ones stop before anything is written.
"""

import json
import re
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

TEMPLATE = Path(__file__).parent
CONTROL_CHARACTERS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class Answers(Extension):
    """Take answers as plain text and add the filters that this template's own files use."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters["one_line"] = one_line
        environment.filters["toml"] = toml
        environment.filters["refuse_bad_answers"] = refuse_bad_answers
        self._own_texts = own_texts(TEMPLATE)
        # cruft renders two versions of the template in one process: each is to import its own extension.
        sys.modules.pop(__name__, None)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Turn text that did not come from this template into a Jinja string, which renders as itself."""
        # Template files have a name; without one come defaults, answers, paths and hooks.
        if name is not None or source in self._own_texts:
            return source
        return "{{ " + repr(source) + " }}"


def own_texts(template: Path) -> set[str]:
    """Return what cookiecutter renders besides files: defaults of the questions, hooks, the folder's name."""
    questions = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    hooks = [hook.read_text(encoding="utf-8") for hook in (template / "hooks").glob("*.py")]
    return {text for text in questions.values() if isinstance(text, str)} | {*hooks, "{{cookiecutter.project_slug}}"}


def one_line(text: str) -> str:
    """Put text on one line: every run of white space and control characters becomes one space."""
    return CONTROL_CHARACTERS.sub(" ", text).strip()


def toml(text: str) -> str:
    """Escape text for the inside of a TOML string in double quotes, on one line.

    `"{{ cookiecutter.author | toml }}"` is a TOML string before and after rendering. Jinja's `tojson` will not do:
    it writes an emoji as two surrogates, which TOML refuses.
    """
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def refuse_bad_answers(answers: Mapping[str, str]) -> str:
    """Stop with one line when the pre-generation hook would, but before cookiecutter makes a folder."""
    faults = runpy.run_path(str(TEMPLATE / "hooks" / "pre_gen_project.py"))["faults"](answers)
    if faults:
        raise FailedHookException("Error: " + "; ".join(faults))
    return ""

"""Configs that are damaged or hostile: one line with file and reason, before any data is read, in no time."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from task_facts import facts_of

from competition.config.loading import (
    DEEPEST,
    FAULTS,
    LOADERS,
    MOST_BYTES,
    MOST_VALUES,
    dump_yaml,
    load_config,
    parse_yaml,
    plain_values,
    task_names,
    validate,
)
from competition.support.errors import CompetitionError

Command = Callable[..., CompletedProcess[str]]
TASK = task_names()[0]
LEVELS = 32
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, LEVELS))])
MERGED = "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, LEVELS))])

# Content of a config file, and what stands in the line that refuses it.
FILES = {
    "no such month": ("seed: 2026-13-01", "not valid YAML: month must be in 1..12"),
    "no such hour": ("seed: 2026-01-01 99:00:00", "not valid YAML: "),
    "a date": ("trainer: {max_time: 2026-01-01}", "trainer.max_time: found a value of type date"),
    "a date as a key": ("trainer: {2026-01-01: 1}", "not valid YAML: key 2026-01-01 is no text; quote it"),
    "bytes": ("data: {dir: !!binary aGk=}", "data.dir: found a value of type bytes"),
    "a set": ("tta: !!set {hflip}", "tta: found a value of type set"),
    "a number of 5000 digits": (f"seed: {'9' * 5000}", "not valid YAML: Exceeds the limit"),
    "a number of 5000 bits": (f"seed: 0x{'f' * 5000}", "seed"),
    "an infinite number": ("optimizer: {lr: 1e999}", "optimizer.lr: found inf"),
    "no integer": ("seed: !!int abc", "not valid YAML: invalid literal"),
    "an empty integer": ("seed: !!int ''", "not valid YAML: "),
    "no float": ("seed: !!float abc", "not valid YAML: could not convert"),
    "no bool": ("seed: !!bool abc", "not valid YAML: 'abc'"),
    "no timestamp": ("seed: !!timestamp abc", "not valid YAML: "),
    "no mapping": ("data: !!map abc", "not valid YAML: "),
    "a list as a key": ("? [a, b]\n: 1", "not valid YAML: "),
    "a mapping as a key": ("? {a: b}\n: 1", "not valid YAML: "),
    "a number as a key": ("1: 2", "1: unknown key"),
    "nothing as a key": ("data: {null: 2}", "not valid YAML: key None is no text; quote it"),
    "deep lists": (f"seed: {'[' * 20_000}", "nested deeper than 40 sections"),
    "deep mappings": (f"seed: {'{a: ' * 60}1{'}' * 60}", "nested deeper than 40 sections"),
    "an anchor bomb": (BOMB, f"holds more than {MOST_VALUES} values"),
    "a bomb of merged mappings": (MERGED, "not valid YAML: "),
    "an alias of itself": ("data: &a [*a]", "not valid YAML: an alias of itself"),
    "an alias of nothing": ("data: *a", "not valid YAML: found undefined alias"),
    "NUL": ("seed: 1\0", "not valid YAML: "),
    "far too much": ("# " + "x" * MOST_BYTES, "is larger than 1 MB"),
    "a lone surrogate": ('name: "\\ud800"', ""),
    "two documents": (f"task: {TASK}\n---\nseed: 1", "not valid YAML: expected a single document"),
    "base: a device": ("base: /dev/zero", "/dev/zero: is no file (the base of "),
    "base: a pipe": ("base: pipe", "pipe: is no file (the base of "),
    "base: a folder": ("base: .", "is no file (the base of "),
    "base: a list": ("base: [a.yaml]", 'base: found ["a.yaml"]; expected the name of a file'),
    "base: NUL": ('base: "a\\0b"', "base: found "),
    "base: a long name": (f"base: {'x' * 300}", "cannot be read (File name too long)"),
    "format: a list": ("format: {like: [a]}", 'format: ["a"] is no format this project knows'),
    "an empty section": ("data:", "data: found null; expected a section"),
    "an empty section within": ("data: {augmentation: }", "data.augmentation: found null; expected a section"),
}
# Values of keys, and what stands in the line that refuses them.
VALUES = {
    "seed=4294967296": "seed: found 4294967296; expected less than 4294967296",
    "seed=[0,4294967296]": "seeds.1: found 4294967296",
    "data.image_size=1048576": "data.image_size: found 1048576; 1048576 x 1048576 are more than 67,108,864",
    "data.image_size=[65536,2048]": "data.image_size: found [65536, 2048]; 65536 x 2048 are more than",
    "data.window={size: 65536}": "data.window.size: found 65536",
    "data.num_folds=1000000000": "data.num_folds: found 1000000000; expected less than or equal to 1000",
    "data.num_workers=1000000": "data.num_workers: found 1000000",
    "data.batch_size=1000000000000": "data.batch_size: found 1000000000000",
    "trainer.max_epochs=1e12": "trainer.max_epochs: found 1000000000000.0; expected a whole number from -1 to 10,000",
    "trainer.max_epochs=1000000000000": "trainer.max_epochs: found 1000000000000; expected a whole number",
    "trainer.max_epochs=-5": "trainer.max_epochs: found -5; expected a whole number",
    "trainer.max_steps=1000000000000": "trainer.max_steps: found 1000000000000; expected a whole number",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches: found 0; expected a whole number from 1",
    "trainer.limit_train_batches=.nan": "trainer.limit_train_batches: found nan; expected a number",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val: found -1; expected a number, 0 or more",
    "data.image_file='{image_id}{0}'": "data.image_file: found ",
    "data.image_file='{image_id}{'": "data.image_file: found ",
    "data.image_file='{image_id!r}'": "data.image_file: found ",
    "data.image_file='{image_id:>9}'": "data.image_file: found ",
    "data.image_file='{image_id}}'": "data.image_file: found ",
    "data.image_file='{0}'": "data.image_file: found ",
    "data.group_pattern='case('": 'data.group_pattern: found "case("; expected a regular expression',
    "tta=[hflip,hflip]": "hflip is the view hflip once more; list each once",
    "tta=[scale1.5,scale1.50]": "scale1.50 is the view scale1.5 once more",
    "tta=[scale99999999]": 'tta.0: found "scale99999999"; expected one of ',
    f"tta=[scale{'9' * 400}]": "expected one of ",
    f"name={'x' * 300}": "it names a folder",
    "data=null": "data: found null; expected a section",
    ".".join(["a"] * 5000) + "=1": "expected key=value",
    f"seed={'[' * 5000}": "not a YAML value: nested deeper than 40 sections",
    "seed=!!int abc": "not a YAML value: invalid literal",
    "data.image_file=**/{image_id}": """a text goes in quotes: 'data.image_file="**/{image_id}"'""",
}
WORDS = [(TASK, word, told) for word, told in VALUES.items()]
WORDS += [(task, word, told) for task in task_names() for word, told in facts_of(task).malformed.items()]


def assert_one_line(message: str, told: str) -> None:
    """Fail for a message of several lines, a long one, and one that leaves out what it is of."""
    assert "\n" not in message
    assert len(message) < 700
    assert told in message


@pytest.mark.parametrize(("content", "told"), FILES.values(), ids=FILES)
def test_a_malformed_file_is_refused_by_every_verb_in_one_line(
    content: str, told: str, command: Command, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.yaml").write_text(content if "task:" in content else f"task: {TASK}\n{content}\n")
    for words in (["check"], ["train", "--preview"]):
        done = command(*words, "bad.yaml", "data.batch_size=2")
        assert done.returncode == 1
        assert_one_line(done.stderr.removesuffix("\n"), told)


@pytest.mark.parametrize(("task", "word", "told"), WORDS, ids=[word[:40] for _, word, _ in WORDS])
def test_a_value_that_cannot_be_is_refused_before_data_is_read(
    task: str, word: str, told: str, command: Command, project: Path
) -> None:
    done = command("train", "--preview", project / "configs" / f"{task}.yaml", word)
    assert done.returncode == 1
    assert_one_line(done.stderr.removesuffix("\n"), told)


def test_a_section_emptied_by_one_file_is_told_though_another_fills_a_part_of_it(tmp_path: Path) -> None:
    for name, text in {"a": f"task: {TASK}\ndata: {{dir: x}}", "b": "data:", "c": "data: {batch_size: 3}"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(CompetitionError, match=r"b\.yaml: data: found null; expected a section of `key: value`$"):
        load_config([tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"])
    assert load_config([tmp_path / "a.yaml", tmp_path / "c.yaml"], ["data.window=null"]).data.window is None


def test_a_config_as_large_as_competitions_have_them_is_read(tmp_path: Path) -> None:
    classes = [f"individual_{n}" for n in range(5_000)]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"task": TASK, "data": {"classes": classes}}))
    assert load_config([tmp_path / "a.yaml"]).data.classes == classes


# Pieces of which YAML is made, so that what is drawn is often almost valid.
PIECES = [
    "a",
    "b",
    ": ",
    "- ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "!!int ",
    "!!set ",
    "<<: ",
    "? ",
    "1",
    "e5",
]
PIECES += [
    '"',
    "'",
    "|",
    ">",
    "#",
    "---\n",
    "2026-02-30",
    "0x",
    "1:2",
    "null",
    "~",
    ".nan",
    "\t",
    "\\x",
    "é",
    "\ud800",
    "\0",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_plain_values_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):  # and nothing else
        parse_yaml(text)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)
KEYS = st.sampled_from(
    ["data", "seed", "fold", "tta", "format", "trainer", "model", "name", "like", "dir", "keys", "x"]
)
ANYTHING = st.recursive(SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(KEYS, one, max_size=3))


TOKENS = ["a", "b: ", ": ", " ", "\n", "\n  ", "- ", "&a ", "*a", "1e-3", "4:00", "0x1f", "null", "\t", "🥇"]
TOKENS += list("[]{},#'\"|>")


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
@settings(max_examples=200, deadline=None)
def test_whichever_reader_takes_a_text_reads_the_same_values(text: str) -> None:
    found = dict[str, Any]()
    for loader in LOADERS:
        with contextlib.suppress(*FAULTS):
            found[loader.__name__] = plain_values(loader(text))
    assert len(set(map(repr, found.values()))) < 2
    for values in found.values():
        assert parse_yaml(dump_yaml({"values": values})) == {"values": values}


@pytest.mark.parametrize("task", task_names())
@given(values=st.dictionaries(KEYS, ANYTHING, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_values_are_a_config_or_refused(task: str, values: dict[str, Any], tmp_path_factory: Any) -> None:
    with contextlib.suppress(CompetitionError):
        validate({"name": "t", **values, "task": task}, {}, "test")
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.safe_dump({**values, "task": task}, allow_unicode=True), encoding="utf-8", errors="replace")
    with contextlib.suppress(CompetitionError):
        assert json.dumps(load_config([path], [f"data.batch_size={DEEPEST}"]).model_dump(mode="json"))

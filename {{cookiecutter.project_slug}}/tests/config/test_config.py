"""The config: merging, overriding, and what is said of a mistake, word for word."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.config.faults import trainer_arguments
from competition.config.loading import (
    YamlLoader,
    config_differences,
    dump_config,
    dump_yaml,
    load_config,
    parse_yaml,
    task_names,
)
from competition.config.settings import Config
from competition.support.errors import CompetitionError

Write = Callable[..., Path]
COURSES = "'cosine', 'linear', 'constant', 'poly', 'step', 'plateau', 'onecycle', 'restarts' or 'flat'"
TASK = task_names()[0]  # what is tested here lies in the sections that every task has


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a config file in the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "exp.yaml") -> Path:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(f"{text}\n")
        return Path(name)

    return write


def refusal(paths: list[Path], *words: str) -> str:
    """Return the message with which configs are refused."""
    with pytest.raises(CompetitionError) as refused:
        load_config(paths, list(words))
    return str(refused.value)


# -- merging


def test_a_later_file_wins_in_the_keys_it_names_and_leaves_the_others(write: Write) -> None:
    first = write(f"task: {TASK}\nseed: 1\noptimizer: {{name: sgd, lr: 0.5}}", "first.yaml")
    second = write("seed: 2\noptimizer: {lr: 0.25}", "second.yaml")
    config = load_config([first, second])
    assert (config.seed, config.optimizer.name, config.optimizer.lr) == (2, "sgd", 0.25)
    assert load_config([first, second, first]).optimizer.lr == 0.5


def test_a_run_is_called_like_its_first_file_unless_it_says_otherwise(write: Write) -> None:
    first, second = write(f"task: {TASK}", "first.yaml"), write("seed: 2", "second.yaml")
    assert load_config([first, second]).name == "first"
    assert load_config([first, second], ["name=other"]).name == "other"


def test_lists_are_replaced_as_a_whole(write: Write) -> None:
    first = write(f"task: {TASK}\ndata: {{classes: [a, b, c]}}", "first.yaml")
    second = write("data: {classes: [d]}", "second.yaml")
    assert load_config([first, second]).data.classes == ["d"]


def test_a_base_lies_beside_its_heir_and_may_have_a_base_itself(write: Write) -> None:
    write(f"task: {TASK}\nseed: 1\nfold: 1\ndata: {{num_folds: 3, channels: 3}}", "root.yaml")
    write("base: ../root.yaml\nseed: 2\ndata: {num_folds: 4}", "inner/middle.yaml")
    heir = write("base: middle.yaml\ndata: {batch_size: 5}", "inner/heir.yaml")
    config = load_config([heir])
    assert (config.name, config.seed, config.fold) == ("heir", 2, 1)
    assert (config.data.num_folds, config.data.batch_size) == (4, 5)


def test_files_that_inherit_in_a_circle_are_refused(write: Write) -> None:
    write("base: b.yaml", "a.yaml")
    message = refusal([write("base: a.yaml", "b.yaml")])
    assert message == "b.yaml: base: files inherit from each other in a circle; remove one `base:`"


def test_words_of_the_command_line_win_over_files_and_the_last_over_the_first(write: Write) -> None:
    path = write(f"task: {TASK}\ndata: {{image_size: 64}}\ntrainer: {{devices: 1, max_epochs: 3}}")
    config = load_config([path], ["data.image_size=[32, 48]", "trainer.devices=2", "seed=3", "seed=4"])
    assert config.data.image_size == (32, 48)
    assert config.trainer == {"devices": 2, "max_epochs": 3}
    assert config.seed == 4


@pytest.mark.parametrize("text", ["5e-4", "5E-4", "5.0e-4", ".5e-3", "+5e-4", "0.0005", "50e-5"])
def test_every_way_to_write_a_number_is_a_number(write: Write, text: str) -> None:
    path = write(f"task: {TASK}\noptimizer: {{lr: {text}}}")
    assert load_config([path]).optimizer.lr == 5e-4
    assert load_config([write(f"task: {TASK}")], [f"optimizer.lr={text}"]).optimizer.lr == 5e-4


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["{!r}", "{:e}", "{:.3E}", "{:.17g}"]))
@settings(max_examples=200)
def test_floats_are_read_as_python_reads_them(number: float, form: str) -> None:
    text = form.format(number)
    assert yaml.load(text, YamlLoader) == float(text)


@given(st.text("ab1e+-._", min_size=1).filter(lambda text: text[0] not in "-."))  # those may mark lists or documents
@settings(max_examples=200)
def test_what_is_no_number_in_python_is_read_as_yaml_reads_it(text: str) -> None:
    try:
        float(text)
    except ValueError:
        assert yaml.load(text, YamlLoader) == yaml.safe_load(text)


# -- mistakes: one line each, with file, key and value

MISTAKES = {
    "data: {imge_size: 64}": "data.imge_size: unknown key (value 64); did you mean `image_size`?",
    "optimiser: {lr: 1}": 'optimiser: unknown key (value {"lr": 1}); did you mean `optimizer`?',
    "gradient_checkpointing: true": (
        "gradient_checkpointing: unknown key (value true); did you mean `model.gradient_checkpointing`?"
    ),
    "early_stopping: {xyz: 1}": "early_stopping.xyz: unknown key (value 1); known here: patience, min_delta",
    "data: {augmentation: {crop: {smalest: 0.5}}}": (
        "data.augmentation.crop.smalest: unknown key (value 0.5); did you mean `smallest`?"
    ),
    "trainer: {max_epoch: 3}": "trainer.max_epoch: unknown key (value 3); did you mean `max_epochs`?",
    "optimizer: {lr: fast}": 'optimizer.lr: found "fast"; expected a valid number',
    "optimizer: {lr: -1e-3}": "optimizer.lr: found -0.001; expected greater than 0",
    "optimizer: {lr: .nan}": "optimizer.lr: found nan; expected a finite number",
    "optimizer: {weight_decay: .inf}": "optimizer.weight_decay: found inf; expected a finite number",
    "scheduler: {name: cos}": ('scheduler.name: found "cos"; expected ' + COURSES + "; did you mean cosine?"),
    "scheduler: {name: xyz}": ('scheduler.name: found "xyz"; expected ' + COURSES),
    'data: {batch_size: "16"}': 'data.batch_size: found "16"; expected a valid integer',
    "data: {batch_size: 0}": "data.batch_size: found 0; expected greater than or equal to 1",
    "data: {num_workers: 1.5}": "data.num_workers: found 1.5; expected a valid integer",
    "seed: true": "seed: found true; expected a valid integer",
    "model: resnet18": 'model: found "resnet18"; expected a section of `key: value`',
    "model: {encoder: 18}": "model.encoder: found 18; expected text",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items())
def test_a_mistake_is_told_with_file_key_value_and_what_was_expected(write: Write, text: str, message: str) -> None:
    assert refusal([write(f"task: {TASK}\n{text}")]) == f"exp.yaml: {message}"


MISTAKES_BETWEEN_KEYS = {
    "fold=7": (
        "fold: found 7; fold 7 does not exist: data.num_folds is 5, so folds are 0 to 4",
        "data: {num_folds: 5}",
    ),
    "data.mean=[0.5]": (
        "data.mean: found [0.5]; data.mean has 1 values for data.channels 3; give one a channel",
        "data: {channels: 3}",
    ),
    "data.classes=[a, a]": (
        'data.classes: found ["a", "a"]; data.classes names a class twice; list each once',
        "seed: 0",
    ),
}


@pytest.mark.parametrize(("word", "expected"), MISTAKES_BETWEEN_KEYS.items())
def test_keys_that_contradict_each_other_are_told_by_the_key_at_fault(
    write: Write, word: str, expected: tuple[str, str]
) -> None:
    message, text = expected
    assert refusal([write(f"task: {TASK}\n{text}")], word) == f"command line ({word}): {message}"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("metrics=[]", "metrics: found []; expected a list of at least 1"),
        ("data.image_size=[64,64,3]", "data.image_size: found [64, 64, 3]; expected a list of at most 2"),
        ("name=", "name: found null; expected text"),
        ("name=a b", 'name: found "a b"; it names a folder: expected letters, digits and _ . + -, with a letter or '),
        ("data.window=64", "data.window: found 64; expected a section of `key: value`"),
        ("tta=[flip]", 'tta.0: found "flip"; expected one of hflip, vflip, '),
        ("tta=[hflip,scale1.01]", 'tta: found ["hflip", "scale1.01"]; scale1.01 of '),
        ("tta=[scale0]", 'tta.0: found "scale0"; expected one of hflip, vflip, '),
        ("data.split=group", 'data.split: found "group"; it needs data.group (a column of train.csv), data.group_f'),
        ("data={split: kfold, group: patient}", 'data.split: found "kfold"; it would tear groups apart; expected grou'),
    ],
)
def test_what_was_expected_is_said_in_plain_words(write: Write, word: str, expected: str) -> None:
    message = refusal([write(f"task: {TASK}")], word)
    assert message.startswith(f"command line ({word}): {expected}")
    assert "\n" not in message


def test_channels_without_a_mean_for_each_are_refused(write: Write) -> None:
    message = refusal([write(f"task: {TASK}\ndata: {{channels: 5}}")])
    assert "exp.yaml: data.mean: " in message
    assert "exp.yaml: data.std: " in message


@pytest.mark.parametrize(("key", "value"), [("model.pretrained", "3"), ("sampler.share", "2")])
def test_a_value_that_may_be_of_several_types_is_one_fault_of_its_key(write: Write, key: str, value: str) -> None:
    message = refusal([write(f"task: {TASK}")], f"{key}={value}")
    assert message.startswith(f"command line ({key}={value}): {key}: found {value}; expected ")
    assert "\n" not in message


def test_a_key_inside_a_value_of_several_types_is_named_as_the_user_wrote_it(write: Write) -> None:
    message = refusal([write(f"task: {TASK}")], "sampler.positive={colum: x}")
    assert 'sampler.positive.colum: unknown key (value "x"); did you mean `column`?' in message
    assert "PositiveColumn" not in message


@pytest.mark.parametrize("key", ["logger", "callbacks", "default_root_dir", "use_distributed_sampler"])
def test_what_the_project_sets_in_the_trainer_may_not_be_set_again(write: Write, key: str) -> None:
    message = refusal([write(f"task: {TASK}\ntrainer: {{{key}: null}}")])
    assert message.startswith(f"exp.yaml: trainer.{key}: set by the project itself; see ")


def test_every_fault_is_blamed_on_the_file_it_stands_in(write: Write) -> None:
    write(f"task: {TASK}\ndata: {{batch_size: 0}}\nseed: 1", "base.yaml")
    first = write("base: base.yaml\nseed: x", "first.yaml")
    second = write("data: {num_folds: 1}\ntrainer: {devices: 1}", "second.yaml")
    lines = refusal([first, second], "optimizer.lr=0", "data.mea=1").splitlines()
    assert set(lines) == {
        "base.yaml: data.batch_size: found 0; expected greater than or equal to 1",
        'first.yaml: seed: found "x"; expected a valid integer',
        "second.yaml: data.num_folds: found 1; expected greater than or equal to 2",
        "command line (optimizer.lr=0): optimizer.lr: found 0; expected greater than 0",
        "command line (data.mea=1): data.mea: unknown key (value 1); did you mean `mean`?",
    }


def test_a_key_that_a_later_file_mends_is_no_fault(write: Write) -> None:
    first, second = write(f"task: {TASK}\nseed: x", "first.yaml"), write("seed: 1", "second.yaml")
    assert load_config([first, second]).seed == 1


def test_a_task_that_is_not_there_is_refused(write: Write) -> None:
    names = ", ".join(task_names())
    assert refusal([write("task: captioning")]) == f'exp.yaml: task: "captioning" is not one of {names}'
    assert refusal([write("seed: 1")]) == f"exp.yaml: task: null is not one of {names}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [1", "exp.yaml: not valid YAML: "),
        ("task: a\n\ttab: 1", "exp.yaml: not valid YAML: "),
        ("- a list", "exp.yaml: expected `key: value` lines, found "),
        ("!!python/object/apply:os.system ['true']", "exp.yaml: not valid YAML: "),
        ("seed: 1\nseed: 2", "exp.yaml: not valid YAML: "),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused_in_one_line(write: Write, text: str, message: str) -> None:
    found = refusal([write(text)])
    assert found.startswith(message)
    assert "\n" not in found


def test_a_missing_file_is_refused_with_the_configs_that_are_there(write: Write) -> None:
    write(f"task: {TASK}", "configs/one.yaml")
    message = refusal([Path("configs/two.yaml")])
    assert message == "configs/two.yaml: cannot be read (No such file or directory); configs here: configs/one.yaml"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("configs/one.yml", "did you mean configs/one.yaml?"),
        ("configs/machines/onee.yaml", "did you mean configs/one.yaml?"),
        ("trainer.max_epochs", "to set this key write trainer.max_epochs=VALUE in one word"),
    ],
)
def test_a_missing_file_that_is_nearly_there_or_a_key_is_told_apart(write: Write, name: str, told: str) -> None:
    write(f"task: {TASK}", "configs/one.yaml")
    assert refusal([Path(name)]).endswith(told)


def test_a_missing_base_is_told_with_the_file_that_names_it(write: Write) -> None:
    message = refusal([write("base: gone.yaml")])
    assert "exp.yaml" in message
    assert "gone.yaml: cannot be read" in message


@pytest.mark.parametrize("word", ["seed", "=3", "data..dir=x", ".seed=1", "seed.=1"])
def test_a_word_that_is_no_key_and_value_is_refused(write: Write, word: str) -> None:
    message = refusal([write(f"task: {TASK}")], word)
    assert message == f"{word}: expected key=value, as in trainer.devices=2"


# -- the resolved config


@pytest.mark.parametrize(
    ("word", "kind"),
    [("max_epochs=many", "a whole number"), ("max_steps=2.5", "a whole number"), ("gradient_clip_val=on", "a number")],
)
def test_a_trainers_number_that_is_none_is_refused_before_anything_starts(
    config_file: Path, word: str, kind: str
) -> None:
    message = refusal([config_file], f"trainer.{word}")
    assert f"; expected {kind} from " in message or message.endswith(f"; expected {kind}, 0 or more")
    assert "\n" not in message


def test_the_resolved_config_reads_back_as_the_same(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    changed = config.model_copy(update={"name": "été-2.x", "seed": 12})
    path.write_text(dump_config(changed), encoding="utf-8")
    assert load_config([path]) == changed


def test_two_configs_differ_in_what_was_changed(config_file: Path) -> None:
    old = load_config([config_file])
    new = load_config([config_file], ["data.batch_size=32", "data.augmentation.crop=null", "trainer.max_steps=5"])
    differences = config_differences(old.model_dump(mode="json"), new.model_dump(mode="json"))
    keys = {difference.partition(":")[0] for difference in differences}
    assert f"data.batch_size: {old.data.batch_size} -> 32" in differences
    assert "trainer.max_steps: None -> 5" in differences
    assert {key for key in keys if "crop" not in key} == {"data.batch_size", "trainer.max_steps"}


def test_the_keys_of_trainer_are_those_of_lightning() -> None:
    from pytorch_lightning import Trainer

    assert set(trainer_arguments()) == set(inspect.signature(Trainer.__init__).parameters) - {"self"}


@pytest.mark.parametrize("text", ["01e77211", "1e5", "12345678", "1.5e-3", "null", "on", "0x1f", "a: b"])
def test_a_text_that_looks_like_a_number_is_written_so_that_it_is_read_as_a_text(text: str) -> None:
    assert parse_yaml(dump_yaml({"key": text, text: 1.5e-7})) == {"key": text, text: 1.5e-7}


def test_every_task_takes_a_course_of_shares_and_a_size_by_epoch(config_file: Path) -> None:
    words = ["sampler.positive=[a]", "sampler.share=[[0, 0.8], [10, natural]]", "data.image_size=[[0, 64], [9, 96]]"]
    config = load_config([config_file], words)
    assert config.sampler.share == [(0, 0.8), (10, "natural")]
    assert config.data.image_size == (96, 96)


# What would change nothing: of a loss that is left out, of classes where there are none, of another course, head or
# architecture.
UNUSED = {
    "segmentation": {
        "loss.label_smoothing=0.1": "loss.label_smoothing: found 0.1; it is of cross_entropy, which",
        "loss={bce: 0, pos_weight: 2}": "loss.pos_weight: found 2.0; it is of bce, which loss.bce gives no weight",
        "model.architecture=linknet model.decoder_channels=64": (
            "model.decoder_channels: found 64; it changes nothing, as the decoder of linknet"
        ),
        "loss.tversky_alpha=0.5": "loss.tversky_alpha: found 0.5; it is of tversky, which loss.tversky gives no weight",
    },
    "points": {
        "loss={focal: 0, bce: 1, focal_beta: 2}": "loss.focal_beta: found 2.0; it is of focal, which loss.focal gives"
    },
    "detection": {
        "model.architecture=tood loss.centerness=2": "loss.centerness: found 2.0; it is of fcos, and model",
    },
    "classification": {
        "loss={mse: 1, label_smoothing: 0.1}": "loss.label_smoothing: found 0.1; it is of classes, and a",
        "sampler.weights=balanced": "sampler.weights: found balanced; it is of classes, and a regression has none",
        "format={targets: {a: {loss: {focal_gamma: 3}}}, target: single, train: {layout: label}} metrics=[mean]": (
            "format.targets.a.loss.focal_gamma: found 3.0; it is of focal, which format.targets.a.loss.focal gives no"
        ),
        "model.metric_learning.centers=5": "model.metric_learning.centers: found 5; it is of subcenter_arcface",
        "model.join_columns=film": "model.join_columns: found film; it is of data.columns, and there are none",
        "data.group_images=4": "data.group_images: found 4; it is of model.join, which is off",
        "format.join=max": "format.join: found max; it is of format.group, and there is none",
    },
}
OF_ALL_TASKS = {
    "scheduler.name=poly scheduler.hold=0.5": "scheduler.hold: found 0.5; it is of flat, and scheduler.name is poly",
    "scheduler.gamma=0.5": "scheduler.gamma: found 0.5; it is of step and plateau, and scheduler.name is flat: ",
    "optimizer.name=Rprop optimizer.weight_decay=0.05": "optimizer.weight_decay: found 0.05; it is not of Rprop",
}


@pytest.mark.parametrize("task", task_names())
def test_what_would_change_nothing_is_told(task: str, write: Write) -> None:
    more = (
        "format: {target: regression, train: {layout: columns}}\nmetrics: [rmse]\n" if task == "classification" else ""
    )
    path = write(f"task: {task}\n{more}")
    assert not load_config([path]).unused()
    assert not load_config([path], ["optimizer.name=Rprop", "optimizer.weight_decay=0"]).unused()
    for words, expected in {**UNUSED[task], **OF_ALL_TASKS}.items():
        found = load_config([path], SPLIT.split(words)).unused()
        assert expected in "\n".join(found.values())
        assert [key for key, line in found.items() if line.startswith(f"{key}: found ")] == list(found)
        assert all(line.endswith(": delete it") for line in found.values())


SPLIT = re.compile(r" (?=[a-z_.]+=)")

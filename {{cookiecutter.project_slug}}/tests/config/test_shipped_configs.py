"""Every config in configs/ loads, says how to run it, and builds its network; presets go with each of them."""

from pathlib import Path

import pytest
import torch
import yaml

from competition.config.loading import flatten, format_presets, load_config, parse_yaml, task_names
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task
from competition.training.module import CompetitionModule

FOLDER = Path(__file__).resolve().parents[2] / "configs"
# A user puts configs of their own beside these, which need not open with a command, nor be whole by themselves.
KNOWN = {f"{task}{suffix}" for task in task_names() for suffix in ("", *(f"_{name}" for name in format_presets(task)))}
CONFIGS = [path for path in sorted(FOLDER.glob("*.yaml")) if path.stem in KNOWN]
PRESETS = [
    FOLDER / "trainer" / f"{name}.yaml" for name in ("cpu", "ddp", "debug", "gpu", "kaggle_t4x2", "multi_node", "slurm")
]


REAL = [path for task in task_names() if (path := FOLDER / f"{task}_real_data.yaml").is_file()]
SMALL = [path for task in task_names() if (path := FOLDER / f"{task}_small_data.yaml").is_file()]


def task_of(path: Path) -> str:
    """Return the task of a file that stands behind its config."""
    return path.stem.removesuffix("_real_data").removesuffix("_small_data")


@pytest.mark.parametrize("path", [*REAL, *SMALL], ids=lambda path: path.stem)
def test_what_stands_behind_the_tasks_config_says_how_and_changes_nothing_else(path: Path) -> None:
    task, text = task_of(path), path.read_text(encoding="utf-8")
    assert f"competition run configs/{task}.yaml configs/{path.name}" in text.splitlines()[0]
    assert len([line for line in text.splitlines() if line.startswith("#")]) <= 3
    alone, together = load_config([FOLDER / f"{task}.yaml"]), load_config([FOLDER / f"{task}.yaml", path])
    named, plain = parse_yaml(text), flatten(together.model_dump(mode="json"))
    values = flatten(named)
    if together.data.train_sizes:  # sizes by epoch are kept there
        values["data.train_sizes"] = values.pop("data.image_size")
    assert {key: plain[key] for key in values} == values
    before = flatten(alone.model_dump(mode="json"))
    changed = {key for key in before.keys() & plain.keys() if before[key] != plain[key]}
    assert changed <= values.keys() | flatten(named).keys()
    unnamed = set(type(alone).model_fields) - set(named)
    assert {key: getattr(together, key) for key in unnamed} == {key: getattr(alone, key) for key in unnamed}
    assert together.name == task


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_what_real_data_wants_is_pretrained_averaged_and_seen_by_views(path: Path) -> None:
    made = load_config([FOLDER / f"{task_of(path)}.yaml", path])
    assert (made.model.pretrained, made.data.num_folds) == (True, 5)
    assert made.ema is not None
    assert made.tta


def test_every_task_has_a_config() -> None:
    assert {path.stem for path in CONFIGS} >= set(task_names())
    assert all(path.is_file() for path in PRESETS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert f"competition run configs/{path.name}" in first


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_opens_with_the_command_that_runs_it(path: Path) -> None:
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"configs/trainer/{path.name}" in line for line in comments)


@pytest.mark.parametrize("path", [*CONFIGS, *SMALL], ids=lambda path: path.stem)
def test_a_network_is_built_and_sees_images(path: Path) -> None:
    paths = [FOLDER / f"{task_of(path)}.yaml", path] if path in SMALL else [path]
    config = load_config(paths, ["model.pretrained=false"])  # what it would fetch from the hub is not tested here
    several = [f"{name}/a" for name in getattr(config.format, "targets", {})]
    module = CompetitionModule(config.model_dump(mode="json"), several or ["a", "b", "c"]).eval()
    assert all(side % 32 == 0 for side in config.data.image_size)
    height, width = (min(side, 96) for side in config.data.image_size)  # the larger ones take seconds, and tell no more
    batch = {
        "image": torch.zeros(2, config.data.channels, height, width),
        "height": torch.tensor([50, 60]),
        "width": torch.tensor([70, 80]),
    }
    with torch.no_grad():
        predictions = Task(config.task).prediction.predictions(module.network, module(batch), batch)
    assert len(predictions) == 2
    module.build_optimizer()
    assert not config.unused()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_encoder_that_is_not_there_is_told_with_the_nearest(path: Path) -> None:
    config = load_config([path], ["model.encoder=resnet81"])
    with pytest.raises(
        CompetitionError,
        match=r"model\.encoder: 'resnet81' is no encoder of timm( or segmentation_models_\w+)?; nearest: .*resnet",
    ):
        Task(config.task).model.build_network(config, 3)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_preset_changes_what_it_names_and_nothing_else(path: Path, preset: Path) -> None:
    alone, together = load_config([path]), load_config([path, preset])
    values = yaml.safe_load(preset.read_text(encoding="utf-8"))
    assert together.name == alone.name
    assert together.trainer == alone.trainer | values["trainer"]
    assert set(values) == {"trainer"} or together != alone
    unnamed = set(type(alone).model_fields) - set(values)
    assert {key: getattr(together, key) for key in unnamed} == {key: getattr(alone, key) for key in unnamed}

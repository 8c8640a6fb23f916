"""Several answers an image, `format.targets`: each is what it would be if it were the only one."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from classification_images import Images
from PIL import Image
from sklearn import metrics as sklearn_metrics
from trainings import run_here
from warm import warm_python

from competition.config.loading import complete
from competition.config.settings import with_classes, with_decode
from competition.prediction.averages import average_predictions
from competition.prediction.stored import Predictions, PredictionWriter
from competition.submission.submit import try_submission
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room
from competition.tasks.classification.dataset import batch_targets, collate_targets, mix_batch, target_tensors
from competition.tasks.classification.decode import decode
from competition.tasks.classification.kinds.heads import head_config, of_head
from competition.tasks.classification.kinds.several_tables import SeveralTable
from competition.tasks.classification.loss import image_losses
from competition.tasks.classification.model import build_network
from competition.tasks.classification.outcome import outcome, present
from competition.tasks.classification.picture import caption
from competition.tasks.classification.prediction import predictions
from competition.tasks.classification.pseudo_labels import own_format
from competition.tasks.classification.score import constant_answers, evidence, scores
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.submission import (
    perfect_answer,
    read_submission,
    read_test_ids,
    write_submission,
)
from competition.tasks.classification.table import read_table
from competition.tasks.classification.tuning import regression_sample, search
from competition.tasks.contract import Prediction

TARGETS: dict[str, Any] = {
    "shape": {"metric": "macro_recall", "score_weight": 2, "loss_weight": 2, "hand_in": "label"},
    "tint": {"unknown": [""], "metric": "accuracy", "hand_in": "label"},
    "marks": {"target": "multi", "none": "nothing", "hand_in": "label_string", "metric": "macro_f1"},
    "size": {"target": "regression", "submit": False, "bounds": [0, 20], "metric": "rmse", "loss_weight": 0.5},
}
ROWS: dict[str, Any] = {
    "targets": TARGETS,
    "submission": {"keys": {"row_id": "{image_id}_{class_id}"}, "layout": "rows"},
}
TRAIN = (
    "image_id,shape,tint,marks,size\n"
    "u,b,warm,top low,3.5\nv,a,,nothing,4\nw,c,cold,low,5.5\nx,a,warm,nothing,9\ny,b,,top,2\nz,c,cold,low,7\n"
)
CLASSES = ("shape/a", "shape/b", "shape/c", "tint/cold", "tint/warm", "marks/low", "marks/top", "size/size")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "sample_submission.csv").write_text(
        "row_id,target\n" + "".join(f"{one}_{name},a\n" for one in "vu" for name in ("marks", "shape", "tint"))
    )
    return tmp_path


def config_of(folder: Path, form: dict[str, Any] = ROWS, **sections: Any) -> TaskConfig:
    values = {"data": {"dir": str(folder), "image_size": 32}, "model": {"encoder": "test_resnet"}, "format": form}
    model = values["model"] | sections.pop("model", {})
    made = complete("classification", {**values, **sections, "model": model})
    assert isinstance(made, TaskConfig)
    return made


def table_of(config: TaskConfig) -> SeveralTable:
    table = read_table(config)
    assert isinstance(table, SeveralTable)
    return table


def known(config: TaskConfig) -> TaskConfig:
    return with_classes(config, CLASSES)


def said(rng: np.random.Generator, number: int) -> list[Prediction]:
    """Return stored predictions as the network makes them."""
    return [
        {
            "shape/probabilities": rng.dirichlet([1, 1, 1]).astype(np.float32),
            "tint/probabilities": rng.dirichlet([1, 1]).astype(np.float32),
            "marks/probabilities": rng.random(2, dtype=np.float32),
            "size/values": rng.uniform(1, 9, 1).astype(np.float32),
        }
        for _ in range(number)
    ]


def test_each_answer_is_read_from_its_own_columns(folder: Path) -> None:
    table = table_of(config_of(folder))
    assert table.classes == CLASSES
    first, second = (table.target(row, 9, 9) for row in (0, 1))
    assert (first["shape/label"], first["tint/label"], first["marks/labels"].tolist()) == (1, 1, [True, True])
    assert (first["size/value"].tolist(), first["tint/is_known"], second["tint/is_known"]) == ([3.5], True, False)
    assert "shape/is_known" not in first
    assert table.present().astype(int).tolist()[1] == [1, 0, 0, 0, 0, 0, 0, 1]
    assert table.strata().tolist() == [2, 1, 3, 1, 2, 3]
    assert "tint: unknown of 2 images, left out of loss and score" in table.summary()


def test_a_mark_of_each_answer_is_found_in_its_row_of_the_submission_and_back(folder: Path) -> None:
    config, table = config_of(folder), table_of(config_of(folder))
    asked = read_test_ids(config, CLASSES).tolist()
    assert asked == ["v", "u"]
    truths = {name: table.target(row, 9, 9) for row, name in enumerate(table.image_ids)}
    path = folder / "s.csv"
    write_submission(path, config, [(one, perfect_answer(truths[one], 8)) for one in asked], CLASSES)
    lines = path.read_text().splitlines()
    assert [line for line in lines if line != lines[3]] == [  # tint of v is unknown
        *("row_id,target", "v_marks,nothing", "v_shape,a"),
        *("u_marks,low top", "u_shape,b", "u_tint,warm"),
    ]
    back = list(read_submission(path, config, CLASSES, {}))
    found = [evidence(answer, truths[one], config.metrics) for one, answer in back]
    assert scores(found, config.metrics, 8) == {
        "mean": 1,
        **{"shape/macro_recall": 1, "tint/accuracy": 1, "marks/macro_f1": 1},  # size is not handed in
    }
    path.write_text(path.read_text().replace("u_shape,b", "u_shape,warm"))
    with pytest.raises(CompetitionError, match=r"line 6: column target: found 'warm', .* classes a, b, c of shape"):
        list(read_submission(path, config, CLASSES, {}))


@pytest.mark.parametrize("names", ["level,mild,severe", "severe,mild"], ids=["rows", "columns"])
def test_probabilities_of_several_answers_stand_in_rows_or_columns(tmp_path: Path, names: str) -> None:
    (tmp_path / "train.csv").write_text("image_id,left,right\na,mild,severe\nb,severe,\nc,,mild\n")
    targets = {name: {"unknown": [""], "metric": "log_loss"} for name in ("left", "right")}
    is_rows = names.startswith("level")
    if is_rows:
        form = {"targets": targets, "submission": {"keys": {"level": "{image_id}_{class_id}"}, "layout": "rows"}}
        text = f"{names}\na_right,.5,.5\na_left,.5,.5\n"
    else:
        form = {"targets": targets}
        text = "image_id,right_severe,right_mild,left_mild,left_severe\na,.5,.5,.5,.5\n"
    (tmp_path / "sample_submission.csv").write_text(text)
    config = config_of(tmp_path, form)
    classes = table_of(config).classes
    assert (config.metrics[0], read_test_ids(config, classes).tolist()) == ("mean_loss", ["a"])
    answer = {"left/probabilities": np.array([0.75, 0.25]), "right/probabilities": np.array([0.125, 0.875])}
    write_submission(tmp_path / "s.csv", config, [("a", answer)], classes)
    written = (tmp_path / "s.csv").read_text().splitlines()[1:]
    assert written == (["a_right,0.125,0.875", "a_left,0.75,0.25"] if is_rows else ["a,0.875,0.125,0.75,0.25"])
    [(_, back)] = read_submission(tmp_path / "s.csv", config, classes, {})
    for key, values in answer.items():
        assert back[key].tolist() == values.tolist()
    try_submission(config, classes, ["a"])


@pytest.mark.parametrize("join", [None, "mean"], ids=["averaged", "joined"])
def test_several_answers_of_a_group_of_images_stand_in_its_rows(tmp_path: Path, join: str | None) -> None:
    (tmp_path / "train.csv").write_text(
        "image_id,study,left,right\na,s,No/Mild,Severe\nb,s,No/Mild,Severe\nc,t,Severe,\nd,t,Severe,\ne,u,No/Mild,No/Mild\n"
    )
    (tmp_path / "test.csv").write_text("image_id,study\nx,y\nw,z\nv,y\n")
    rows = "y_left,.5,.5\nz_left,.5,.5\nz_right,.5,.5\ny_right,.5,.5\n"
    (tmp_path / "sample_submission.csv").write_text(f"row_id,no_mild,severe\n{rows}")
    targets = {name: {"unknown": [""], "metric": "log_loss"} for name in ("left", "right")}
    names = {"No/Mild": "no_mild", "Severe": "severe"}
    asked = {"keys": {"row_id": "{image_id}_{class_id}"}, "layout": "rows", "names": names}
    config = config_of(tmp_path, {"targets": targets, "group": "{study}", "submission": asked}, model={"join": join})
    table = table_of(config)
    assert table.classes == ("left/No/Mild", "left/Severe", "right/No/Mild", "right/Severe")
    assert table.image_ids.tolist() == (list("abcde") if join is None else list("stu"))
    assert [table.target(row, 9, 9)["right/is_known"] for row in range(len(table.image_ids))] == (
        [True, True, False, False, True] if join is None else [True, False, True]
    )
    said = {"y": (0.75, 0.25), "z": (0.5, 0.125)}
    tests = read_test_ids(config, table.classes).tolist()
    assert tests == (["x", "v", "w"] if join is None else ["y", "z"])
    studies = {"x": "y", "v": "y", "w": "z"}
    pairs = {one: [np.array([1 - p, p]) for p in said[studies.get(one, one)]] for one in tests}
    answers = [(one, {"left/probabilities": pair[0], "right/probabilities": pair[1]}) for one, pair in pairs.items()]
    write_submission(tmp_path / "s.csv", config, answers, table.classes)
    written = (tmp_path / "s.csv").read_text().splitlines()
    assert written[1:] == ["y_left,0.25,0.75", "z_left,0.5,0.5", "z_right,0.875,0.125", "y_right,0.75,0.25"]
    truths = [table.target(row, 9, 9) for row in range(len(table.image_ids))]
    each = [{key: said for key, said in perfect_answer(one, 4).items() if "probab" in key} for one in truths]
    found = [evidence(answer, one, config.metrics) for answer, one in zip(each, truths, strict=True)]
    assert scores(found, config.metrics, 4)["mean_loss"] == pytest.approx(0, abs=1e-9)


def test_the_score_is_the_weighted_mean_of_those_of_the_known_answers(folder: Path) -> None:
    config, table, rng = config_of(folder), table_of(config_of(folder)), np.random.default_rng(0)
    truths = [table.target(row, 9, 9) for row in range(6)]
    answers = [decode(one, 9, 9, config) for one in said(rng, 6)]
    found = scores([evidence(a, t, config.metrics) for a, t in zip(answers, truths, strict=True)], config.metrics, 8)
    shape = sklearn_metrics.recall_score(
        [t["shape/label"] for t in truths], [a["shape/choice"] for a in answers], average="macro", zero_division=0
    )
    seen = [(t["tint/label"], a["tint/choice"]) for t, a in zip(truths, answers, strict=True) if t["tint/is_known"]]
    tint = sklearn_metrics.accuracy_score(*zip(*seen, strict=True))
    marks = sklearn_metrics.f1_score(
        np.array([t["marks/labels"] for t in truths]), np.array([a["marks/labels"] for a in answers]), average="macro"
    )
    values, true = ([float(one["size/value"][0]) for one in each] for each in (answers, truths))
    size = sklearn_metrics.root_mean_squared_error(true, values)
    mean = np.average([shape, tint, marks], weights=[2, 1, 1])
    assert list(found) == config.metrics
    assert list(found.values()) == pytest.approx([mean, shape, tint, marks, size])


def test_a_target_of_which_nothing_is_known_is_left_out_of_the_mean(folder: Path) -> None:
    config, table = config_of(folder), table_of(config_of(folder))
    truth = table.target(1, 9, 9)
    found = scores([evidence(perfect_answer(truth, 8), truth, config.metrics)], config.metrics, 8)
    assert np.isnan(found["tint/accuracy"])
    assert found["mean"] == pytest.approx((2 * 1 + found["marks/macro_f1"]) / 3)


def test_the_loss_is_the_weighted_sum_of_each_answers_own(folder: Path) -> None:
    config, table = known(config_of(folder)), table_of(config_of(folder))
    network = build_network(config, 8)
    batch = collate_targets([target_tensors(table.target(row, 9, 9)) for row in range(3)])
    outputs = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    losses = image_losses(network, outputs, batch, config)
    parts = dict(zip(TARGETS, outputs.detach().split([3, 2, 2, 1], dim=1), strict=True))
    own = {n: image_losses(network, part, of_head(batch, n), head_config(config, n)) for n, part in parts.items()}
    is_known = torch.tensor([1.0, 0, 1])
    torch.testing.assert_close(
        losses.detach(), 2 * own["shape"] + own["tint"] * is_known + own["marks"] + 0.5 * own["size"]
    )
    losses.sum().backward()
    assert outputs.grad is not None
    assert (outputs.grad[1, 3:5] == 0).all()
    assert (outputs.grad[0] != 0).all()


def test_the_network_says_of_each_answer_what_it_would_alone(folder: Path) -> None:
    config = known(config_of(folder))
    network = build_network(config, 8).eval()
    with torch.no_grad():
        outputs = network(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    [first, _] = predictions(network, outputs, {})
    assert [(key, len(values)) for key, values in first.items()] == [
        *(("shape/probabilities", 3), ("tint/probabilities", 2)),
        *(("marks/probabilities", 2), ("size/values", 1)),
    ]
    np.testing.assert_allclose(first["tint/probabilities"], outputs[0, 3:5].softmax(dim=0), rtol=1e-5)
    np.testing.assert_allclose(first["marks/probabilities"], outputs[0, 5:7].sigmoid(), rtol=1e-5)
    np.testing.assert_allclose(first["size/values"], 20 * outputs[0, 7:].sigmoid(), rtol=1e-5)


def test_mixed_images_have_the_mixed_answers_and_none_that_one_of_them_lacks(folder: Path) -> None:
    config, table = config_of(folder, mix={"mixup": 1.0}), table_of(config_of(folder))
    targets = [target_tensors(table.target(row, 9, 9)) for row in range(6)]
    batch = {"image": torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 3, 4, 4), **collate_targets(targets)}
    mixed = mix_batch(batch, config, np.random.default_rng(3))
    share = float(mixed["shape/share"])
    partner = ((mixed["image"][:, 0, 0, 0] - torch.arange(6.0) * share) / (1 - share)).round().long()
    assert mixed["shape/partner"].tolist() == batch["shape/label"][partner].tolist()
    torch.testing.assert_close(
        mixed["size/value"], batch["size/value"] * share + batch["size/value"][partner] * (1 - share)
    )
    lacking = torch.tensor([1, 4])
    assert (
        mixed["tint/is_known"].tolist()
        == (~torch.isin(torch.arange(6), lacking) & ~torch.isin(partner, lacking)).tolist()
    )
    shown = batch_targets(mixed)[0]
    assert shown["shape/probabilities"].sum() == pytest.approx(1)
    assert shown["tint/is_known"] is mixed["tint/is_known"].tolist()[0]


def test_each_answer_is_decided_by_thresholds_that_are_best_for_it(folder: Path) -> None:
    config, table = config_of(folder), table_of(config_of(folder))
    images = Images(table, said(np.random.default_rng(5), 6))
    found = search(config, images, 8).best(np.arange(6))
    assert set(found) == {"targets"}
    assert set(found["targets"]) == {"shape", "tint", "marks"}
    tuned = with_decode(config, found)
    assert images.score(tuned, np.arange(6)) > images.score(config, np.arange(6))
    # The others' images and thresholds change nothing: unknown images of tint apart, it is tuned as if alone.
    fewer = search(config, images, 8).best(np.array([0, 1, 2, 3, 5]))["targets"]
    assert fewer["tint"] == found["targets"]["tint"]
    # What is set for a target that is not tuned stays.
    kept = config_of(folder, decode={"targets": {"size": {"cut_points": [3, 6]}}})
    assert search(kept, images, 8).best(np.arange(6))["targets"]["size"] == {"cut_points": [3, 6]}


def test_several_answers_are_averaged_ranked_blended_and_looked_at(folder: Path) -> None:
    config, table = config_of(folder), table_of(config_of(folder))
    one, two = said(np.random.default_rng(1), 2)
    for number, each in enumerate((one, two)):
        with PredictionWriter(folder) as writer:
            writer.add("u", 9, 9, each)
            writer.finish(folder / f"{number}.npz", CLASSES)
    average_predictions(
        [Predictions(folder / f"{number}.npz") for number in (0, 1)], folder / "both.npz", config, [3, 1]
    )
    stored = Predictions(folder / "both.npz")[0]
    assert list(stored) == list(one)
    for key, values in stored.items():
        np.testing.assert_allclose(values, (3 * one[key] + two[key]) / 4, rtol=1e-6)
    truth, answer = table.target(1, 9, 9), decode(one, 9, 9, config)
    samples, outputs = regression_sample([one, two], truth, 0) or (np.zeros(0), np.zeros(0))
    assert samples.shape == (3 + 2 + 1, 2)  # without tint, which is not known
    assert outputs.tolist() == [1, 0, 0, 0, 0, 4]
    assert present(answer, 8).tolist()[:3] == (np.arange(3) == answer["shape/choice"]).tolist()
    assert caption(truth, CLASSES) == "shape: a; tint: unknown; marks: none; size: 4"
    assert re.fullmatch(r"shape: (\w \d+ %(, )?)+; tint: .*; marks: .*; size: [\d.]+", caption(answer, CLASSES))
    found = outcome(one, answer, truth, 8)
    assert found.num_true.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(CompetitionError, match=r"pseudo-labels: of format\.targets"):
        own_format(config)
    assert caption(constant_answers(table)[1], CLASSES).startswith("shape: a 33 %, b 33 %, c 33 %; tint:")


def changed(name: str, **keys: Any) -> dict[str, Any]:
    return ROWS | {"targets": TARGETS | {name: TARGETS[name] | keys}}


@pytest.mark.parametrize(
    ("form", "sections", "expected"),
    [
        (changed("shape", metric="rmse"), {}, r"rmse cannot score format\.targets\.shape\.target single"),
        (changed("shape", metric="log_loss"), {}, r"is better, and of format\.targets\.\w+\.metric \w+ .* metrics: \["),
        (changed("size", submit=True), {}, r"mean is of metrics of which higher is better.*size\.metric rmse lower is"),
        (changed("shape", loss={"bce": 1}), {}, r"format\.targets\.shape\.loss\.bce cannot learn .* single"),
        (changed("shape", bounds=[0, 1]), {}, r"format\.targets\.shape: format\.bounds are lowest"),
        (changed("shape", metrc="error"), {}, r"format\.targets\.shape\.metrc: unknown key .* did you mean `metric`"),
        (changed("shape", metric="macro_recal"), {}, r"format\.targets\.shape\.metric: found \"macro_recal\""),
        (changed("shape", columns=["a"], column="b"), {}, "leave out column and classes"),
        (ROWS | {"targets": {"2 d": {}}}, {}, "expected letters, digits and _"),
        (ROWS | {"targets": {"a": {"submit": False}}}, {}, "none is handed in"),
        (ROWS | {"target": "multi"}, {}, r"format\.target is of one answer; .* format\.targets\.shape\.target"),
        (ROWS | {"train": {"column": "x"}}, {}, r"format\.train\.column is of one answer; .*targets\.shape\.columns"),
        (ROWS | {"submission": {"layout": "label"}}, {}, r"layout label is of one answer; .*targets\.shape\.hand_in"),
        (
            ROWS,
            {"model": {"head": "arcface"}},
            r"model\.head is of one answer an image, and format\.targets are several",
        ),
        (ROWS, {"loss": {"focal": 1}}, r"loss\.focal: with format\.targets .* format\.targets\.shape\.loss"),
        (ROWS, {"metrics": ["accuracy"]}, "accuracy cannot score format.targets; expected mean"),
        (ROWS, {"metrics": ["tint/rmse"]}, r"rmse cannot score format\.targets\.tint\.target single"),
        (ROWS, {"metrics": ["mean_loss"]}, "mean_loss is of metrics of which lower is better"),
        (ROWS, {"decode": {"targets": {"tin": {}}}}, "'tin' is none of format.targets; expected some of shape"),
        (ROWS, {"data": {"classes": ["a"]}}, r"data\.classes is of one answer; .*format\.targets\.shape\.classes"),
        ({}, {"metrics": ["mean"]}, r"mean is for format\.targets"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    form: dict[str, Any], sections: dict[str, Any], expected: str
) -> None:
    with pytest.raises(CompetitionError, match=expected) as refused:
        complete("classification", {"format": form, **sections})
    assert len(str(refused.value).splitlines()) == 1


def test_a_wrong_cell_is_named_with_its_target_and_row(folder: Path) -> None:
    (folder / "train.csv").write_text(TRAIN.replace("v,a,,nothing,4", "v,,,nothing,x"))
    with pytest.raises(CompetitionError) as refused:
        read_table(config_of(folder))
    first, second = str(refused.value).splitlines()
    assert re.search(r"^format\.targets\.shape: .*line 3.*no label", first)
    assert re.search(r"^format\.targets\.size: .*line 3: found 'x'; expected a number from 0 to 20", second)


SHAPES, TINTS, MARKS = "abc", ("cold", "warm"), ("low", "top")


def draw(rng: np.random.Generator, number: int) -> tuple[Image.Image, list[str]]:
    """Return an image whose answers are where a bar is, its colour, at which edges there are marks, and its length."""
    shape, tint, marks, size = (
        int(rng.integers(3)),
        int(rng.integers(2)),
        rng.integers(0, 2, 2),
        int(rng.integers(4, 12)),
    )
    pixels = rng.integers(30, 60, (32, 32, 3), dtype=np.uint8)
    pixels[16 - size : 16 + size, 3 + 9 * shape : 11 + 9 * shape, 0 if tint else 2] = 240
    for mark, place in zip(marks, (slice(-3, None), slice(3)), strict=True):
        pixels[place] = 255 if mark else pixels[place]
    words = " ".join(word for word, mark in zip(MARKS, marks, strict=True) if mark) or "nothing"
    return Image.fromarray(pixels), [SHAPES[shape], "" if number % 4 == 0 else TINTS[tint], words, str(size)]


def write_competition(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part, number in (("train", 64), ("test", 10)):
        (folder / f"{part}_images").mkdir(parents=True)
        rows = []
        for one in range(number):
            image, answers = draw(rng, one + (part == "test"))
            image.save(folder / f"{part}_images" / f"{part}_{one}.png")
            rows.append(",".join([f"{part}_{one}", *answers]))
        name = "train.csv" if part == "train" else "solution.csv"
        (folder / name).write_text("\n".join(["image_id,shape,tint,marks,size", *rows, ""]))
    asked = [f"test_{one}_{name},a" for one in range(10) for name in ("shape", "tint", "marks")]
    (folder / "sample_submission.csv").write_text("\n".join(["row_id,target", *asked, ""]))


@pytest.mark.slow
def test_several_answers_go_all_the_way(command: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    write_competition(tmp_path / "data")
    values = {
        "name": "several",
        "task": "classification",
        "data": {"num_folds": 2, "image_size": 32, "batch_size": 8, "num_workers": 0, "image_file": "{image_id}.png"},
        "model": {"encoder": "test_resnet"},
        "format": ROWS,
        "mix": {"mixup": 0.4, "probability": 0.2},
        "optimizer": {"lr": 1e-2},
        "tta": ["scale1.5"],
        "checkpoint": {"monitor": "val/mean"},
        "trainer": {"max_epochs": 8, "accelerator": "cpu"},
    }
    (tmp_path / "several.yaml").write_text(yaml.safe_dump(values))
    ended = command("check", "several.yaml")
    assert ended.returncode == 0, ended.stderr
    ended = run_here(tmp_path, ["several.yaml"])
    assert ended.returncode == 0, ended.stdout
    folder = tmp_path / "outputs" / "several"
    pooled = pd.read_csv(folder / "cv.csv").set_index("images").loc["pooled"]
    parts = pooled[["shape/macro_recall", "tint/accuracy", "marks/macro_f1"]].to_numpy(dtype=float)
    assert pooled["mean"] == pytest.approx(np.average(parts, weights=[2, 1, 1]), abs=1e-5)
    assert pooled["mean"] > 0.6  # by chance it is below a half
    decided = yaml.safe_load((folder / "postprocess.yaml").read_text())["decode"]
    assert set(decided.get("targets", {})) <= {"shape", "tint", "marks"}
    if not has_room("bundle"):
        return
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [warm_python(), str(folder / "bundle" / "infer.py"), str(tmp_path / "data")],
        cwd=tmp_path / "elsewhere",
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "submission.csv").read_text() == (folder / "submission.csv").read_text()
    from competition.bundle.predictor import Predictor

    rows = Predictor(folder / "bundle", tmp_path / "data")("test_3")  # in the order of the targets, not of the sample
    assert sorted(rows.to_csv(index=False).splitlines()[1:]) == sorted(
        (folder / "submission.csv").read_text().splitlines()[10:13]
    )

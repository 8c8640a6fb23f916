"""Metrics that bear a competition's name, and every shipped config's: held against graders by the definition."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from competition.config.loading import complete, format_presets, load_config
from competition.config.settings import with_classes
from competition.support.errors import CompetitionError
from competition.support.paths import PACKAGE
from competition.tasks.classification import metrics as our_metrics
from competition.tasks.classification.metrics_together import TOGETHER
from competition.tasks.classification.score import evidence, lower_is_better, scores
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.metric_names import METRICS, TargetKind
from competition.tasks.classification.submission import read_submission
from competition.tasks.classification.table import read_table

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
Grader = Callable[[np.ndarray, np.ndarray], float]  # of the truth, and of probabilities or numbers
some = settings(max_examples=25, deadline=None)


def labelled(truth: np.ndarray, said: np.ndarray, metric: str, **more: np.ndarray) -> float:
    pairs = zip(truth > 0, said, strict=True)
    each = [evidence({"probabilities": p, "labels": p >= 0.5}, {"labels": y, **more}, [metric]) for y, p in pairs]
    return scores(each, [metric], truth.shape[1])[metric]


def single(truth: np.ndarray, said: np.ndarray, metric: str) -> float:
    each = [evidence({"probabilities": p}, {"label": int(y)}, [metric]) for y, p in zip(truth, said, strict=True)]
    return scores(each, [metric], said.shape[1])[metric]


def numbers(truth: np.ndarray, said: np.ndarray, metric: str, **more: np.ndarray) -> float:
    each = [evidence({"value": v}, {"value": t, **more}, [metric]) for t, v in zip(truth, said, strict=True)]
    return scores(each, [metric], truth.shape[1])[metric]


def weighted_area(truth: np.ndarray, said: np.ndarray) -> float:
    """As an integral over the true positive rate, read off the curve at many places: those below .4 count twice."""
    cuts = np.r_[np.inf, np.unique(said)[::-1]]
    true, false = ([(said[truth == side] >= cut).mean() for cut in cuts] for side in (1, 0))
    at = (np.arange(200_000) + 0.5) / 200_000
    return float(np.average(1 - np.interp(at, true, false), weights=np.where(at < 0.4, 2, 1)))


@given(st.integers(0, 2**20))
@some
def test_alaska_is_the_curve_read_at_many_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.r_[0, 1, rng.integers(0, 2, rng.integers(2, 40))]
    said = np.round(rng.random(len(truth)) * 0.8 + 0.2 * truth, int(rng.integers(1, 4)))  # ties, too
    assert labelled(truth[:, None], said[:, None], "alaska") == pytest.approx(weighted_area(truth, said), abs=1e-4)


def spine_loss(truth: np.ndarray, said: np.ndarray, weights: np.ndarray) -> float:
    """A row a study and bone; each study's loss is divided by its weights."""
    rows = [
        {"study": study, "weight": w * (2 if y else 1), "loss": -np.log(p if y else 1 - p)}
        for study in range(len(truth))
        for y, p, w in zip(truth[study], said[study], weights, strict=True)
    ]
    frame = pd.DataFrame(rows)
    frame["loss"] *= frame["weight"]
    total = frame.groupby("study")[["loss", "weight"]].sum()
    return float((total["loss"] / total["weight"]).mean())


def test_rsna2022_weighs_by_class_and_truth_within_each_study() -> None:
    rng = np.random.default_rng(0)
    truth, said, weights = rng.integers(0, 2, (12, 4)), rng.uniform(0.01, 0.99, (12, 4)), np.array([7.0, 1, 1, 1])
    found = labelled(truth, said, "rsna2022", class_weights=weights)
    assert found == pytest.approx(spine_loss(truth, said, weights))
    assert lower_is_better("rsna2022")
    assert labelled(truth, truth.astype(float), "rsna2022", class_weights=weights) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("is_single", [False, True])
def test_areas_by_group_are_those_of_each_group_alone(tmp_path: Path, is_single: bool) -> None:
    rng = np.random.default_rng(2)
    sites, said = rng.integers(0, 3, 60), rng.random((60, 3))
    truth = np.eye(3, dtype=int)[rng.integers(0, 3, 60)] if is_single else rng.integers(0, 2, (60, 3))
    truth[sites == 2] = [0, 0, 1]  # tells nothing
    if not is_single:
        truth[sites == 1, 0] = 0
    rows = [f"i{k},s{site},{','.join(map(str, row))}" for k, (site, row) in enumerate(zip(sites, truth, strict=True))]
    (tmp_path / "train.csv").write_text("\n".join(["image_id,site,a,b,c", *rows, ""]))
    form = {"target": "single" if is_single else "multi", "train": {"layout": "columns"}, "score_by": "site"}
    data = {"dir": str(tmp_path), "classes": ["a", "b", "c"]}
    config = complete("classification", {"format": form, "data": data, "metrics": ["group_roc_auc", "roc_auc"]})
    assert isinstance(config, TaskConfig)
    table = read_table(config)
    targets = [table.target(index, 9, 9) for index in range(60)]
    each = [evidence({"probabilities": p}, target, config.metrics) for p, target in zip(said, targets, strict=True)]
    areas = []
    for site in (0, 1):
        here = sites == site
        columns = [k for k in range(3) if 0 < truth[here, k].sum() < here.sum()]
        areas.append(np.mean([metrics.roc_auc_score(truth[here, k], said[here, k]) for k in columns]))
    assert scores(each, config.metrics, 3)["group_roc_auc"] == pytest.approx(np.mean(areas))
    assert list(scores(each, config.metrics, 3)) == config.metrics
    with pytest.raises(CompetitionError, match=r"group_roc_auc needs format\.score_by"):
        complete("classification", {"metrics": ["group_roc_auc"]})


def test_voc_map_of_several_labels_is_that_of_each_where_it_is_known() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 2, (30, 3)), rng.random((30, 3))
    known = rng.random((30, 3)) < 0.7
    wanted = np.mean([area(truth[here, k] == 1, said[here, k]) for k, here in enumerate(known.T)])
    rows = zip(truth > 0, said, known, strict=True)
    each = [
        evidence({"probabilities": p, "labels": p >= 0.5}, {"labels": y & k, "known": k}, ["voc_map"])
        for y, p, k in rows
    ]
    assert scores(each, ["voc_map"], 3)["voc_map"] == pytest.approx(wanted)


def test_the_error_is_one_minus_accuracy_and_lower_is_better() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 20), rng.random((20, 3))
    assert single(truth, said, "error") == pytest.approx(metrics.zero_one_loss(truth, said.argmax(axis=1)))
    assert lower_is_better("error")


@given(st.integers(0, 2**20), st.integers(1, 4))
@some
def test_r2_is_that_of_scikit_learn_by_column_or_weighted_over_all(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(9, columns)) * 10
    said, weights = truth + rng.normal(size=truth.shape) * 4, rng.uniform(0.1, 1, columns)
    assert numbers(truth, said, "r2") == pytest.approx(metrics.r2_score(truth, said))
    over_all = metrics.r2_score(truth.ravel(), said.ravel(), sample_weight=np.tile(weights, len(truth)))
    assert numbers(truth, said, "weighted_r2", class_weights=weights) == pytest.approx(over_all)
    assert numbers(truth, np.full_like(truth, truth.mean()), "weighted_r2") == pytest.approx(0)
    assert not lower_is_better("r2")


def test_weights_of_a_regression_are_named_by_column() -> None:
    form = {"target": "regression", "train": {"layout": "columns"}, "class_weights": {"total": 0.5}}
    assert complete("classification", {"format": form, "metrics": ["weighted_r2"]}).format.class_weights == {
        "total": 0.5
    }


# -- shipped configs


def mean_average_precision(truth: np.ndarray, said: np.ndarray) -> float:
    places = [int((row >= row[y]).sum()) for y, row in zip(truth, said, strict=True)]
    return float(np.mean([1 / place if place <= 5 else 0 for place in places]))


def mean_area(truth: np.ndarray, said: np.ndarray) -> float:
    each = zip(truth.reshape(len(truth), -1).T, said.T, strict=True)
    return float(np.mean([metrics.roc_auc_score(y, p) for y, p in each]))


def probabilistic_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """RSNA's own: decisions are handed in."""
    decided = (said >= 0.5).astype(float)
    hits = decided[truth > 0].sum()
    precision, recall = hits / decided.sum(), hits / truth.sum()
    return float(2 * precision * recall / (precision + recall))


def right(truth: np.ndarray, said: np.ndarray) -> float:
    return float(metrics.accuracy_score(truth, said.argmax(axis=1)))


def voc_precision(truth: np.ndarray, said: np.ndarray) -> float:
    """PASCAL VOC's since 2010: at each right image the best precision from there on; mean of those, then of classes."""
    return float(np.mean([area(truth == label, said[:, label]) for label in np.unique(truth)]))


def area(truth: np.ndarray, said: np.ndarray) -> float:
    right = truth[np.argsort(-said, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(np.mean([precision[place:].max() for place in np.flatnonzero(right)]))


def bengali(truth: dict[str, np.ndarray], said: dict[str, np.ndarray]) -> float:
    """As on its evaluation page: `recall_score(average='macro')` of each component, the roots' counting twice."""
    each = [
        metrics.recall_score(truth[name], said[name], average="macro", zero_division=0)
        for name in ("grapheme_root", "consonant_diacritic", "vowel_diacritic")
    ]
    return float(np.average(each, weights=[2, 1, 1]))


def lumbar(solution: pd.DataFrame, submission: pd.DataFrame) -> float:
    """As the host's file: `log_loss` with sample weights of the rows of each condition, and of studies' worst spinal
    rows; rows that nobody knows are no part of the solution."""
    grades = ["normal_mild", "moderate", "severe"]
    frame = solution.merge(submission, on="row_id", suffixes=("_true", ""))
    true = [f"{grade}_true" for grade in grades]
    frame["weight"] = frame[true].to_numpy() @ [1, 2, 4]
    losses = []
    for condition in ("spinal", "foraminal", "subarticular"):
        rows = frame[frame["row_id"].str.contains(condition)]
        losses.append(metrics.log_loss(rows[true].to_numpy(), rows[grades].to_numpy(), sample_weight=rows["weight"]))
    spinal = frame[frame["row_id"].str.contains("spinal")]
    worst = spinal.groupby(spinal["row_id"].str.split("_").str[0])[["severe_true", "severe", "weight"]].max()
    losses.append(metrics.log_loss(worst["severe_true"], worst["severe"], sample_weight=worst["weight"]))
    return float(np.mean(losses))


def test_grades_of_the_lumbar_spine_are_scored_as_their_host_does(tmp_path: Path) -> None:
    rng, studies = np.random.default_rng(0), [str(study) for study in range(30)]
    for study, number in zip(studies, rng.integers(1, 4, 30), strict=True):  # of which all slices say the same
        (tmp_path / "train_images" / study / "7").mkdir(parents=True)
        for slice_ in range(number):
            (tmp_path / "train_images" / study / "7" / f"{slice_}.dcm").touch()
    (tmp_path / "test_images").symlink_to("train_images")
    config = load_config([CONFIGS / "classification_rsna2024.yaml"], [f"data.dir={tmp_path}"])
    assert isinstance(config, TaskConfig)
    names, grades = list(config.format.targets), ["normal_mild", "moderate", "severe"]
    truth = rng.choice(4, (30, 25), p=[0.6, 0.2, 0.1, 0.1])  # the last: nobody knows
    truth[0, [k for k, name in enumerate(names) if "spinal" in name]] = 3
    cells = np.array(["Normal/Mild", "Moderate", "Severe", ""])[truth]
    pd.DataFrame(cells, columns=names).assign(study_id=studies).to_csv(tmp_path / "train.csv", index=False)
    said = rng.dirichlet([1, 1, 1], (30, 25))
    said[1] = [0.999, 0.001, 0]  # as sure of it as can be
    keys = [f"{study}_{name}" for study in studies for name in names]
    submission = pd.DataFrame(said.reshape(-1, 3), columns=grades).assign(row_id=keys)[["row_id", *grades]]
    submission.sample(frac=1, random_state=0).to_csv(tmp_path / "sample_submission.csv", index=False)
    table = read_table(config)
    config = with_classes(config, table.classes)
    rows = {one: row for row, one in enumerate(table.image_ids)}
    answers = read_submission(tmp_path / "sample_submission.csv", config, table.classes, {})
    found = [evidence(answer, table.target(rows[one], 9, 9), config.metrics) for one, answer in answers]
    assert len(found) == len(rows) > 30
    known = truth.reshape(-1) < 3
    solution = pd.DataFrame(np.eye(4)[truth.reshape(-1), :3], columns=grades).assign(row_id=keys)[known]
    assert scores(found, ["rsna2024"], 0)["rsna2024"] == pytest.approx(lumbar(solution, submission), rel=1e-6)
    assert lower_is_better("rsna2024")


@pytest.mark.parametrize("name", TOGETHER)
def test_a_metric_of_all_targets_is_known_in_one_place(name: str) -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if name in path.read_text(encoding="utf-8")] == [
        "metrics_together.py"
    ]


@pytest.mark.parametrize(
    ("kind", "computed"),
    [("single", our_metrics.SINGLE), ("multi", our_metrics.MULTI), ("regression", our_metrics.NUMBERS)],
)
def test_every_metric_that_a_config_may_name_is_computed(kind: TargetKind, computed: dict[str, object]) -> None:
    of_groups = set() if kind == "regression" else {"group_roc_auc"}  # of parts of the images: kinds/kind.py
    assert {name for name, one in METRICS.items() if kind in one.of} == {*computed, *of_groups}


def test_rsna2024_is_of_grades_of_the_spine() -> None:
    targets = {"spinal_l1": {"classes": ["a", "b", "c"]}, "age": {"target": "regression"}}
    with pytest.raises(
        CompetitionError, match=r"rsna2024 is of three grades, the worst last, of .* format\.targets\.age is none"
    ):
        complete("classification", {"format": {"targets": targets}, "metrics": ["rsna2024"]})
    with pytest.raises(CompetitionError, match=r"rsna2024 is for format\.targets"):
        complete("classification", {"metrics": ["rsna2024"]})


SINGLE: dict[str, Grader] = {
    "aptos2019": lambda y, p: float(metrics.cohen_kappa_score(y, p.argmax(axis=1), weights="quadratic")),
    "cassava": right,
    "dog_breed": lambda y, p: float(metrics.log_loss(y, p, labels=range(p.shape[1]))),
    "happywhale": mean_average_precision,
    "hotel2021": mean_average_precision,
    "humpback": mean_average_precision,
    "leaf": lambda y, p: float(metrics.log_loss(y, p, labels=range(p.shape[1]))),
    "paddy": right,
    "plant_seedlings": lambda y, p: float(metrics.f1_score(y, p.argmax(axis=1), average="micro")),
    "siim_covid": voc_precision,
    "plant2020": lambda y, p: mean_area(np.eye(p.shape[1])[y], p),
}
MULTI: dict[str, Grader] = {
    "alaska2": lambda y, p: weighted_area(y[:, 0], p[:, 0]),
    "cactus": mean_area,
    "histopathologic": mean_area,
    "iceberg": lambda y, p: float(metrics.log_loss(y[:, 0], p[:, 0])),
    "melanoma": mean_area,
    "ranzcr": mean_area,
    "rsna2022": lambda y, p: spine_loss(y, p, np.array([7.0, *[1.0] * 7])),
    "rsna_miccai": mean_area,
    "seti": mean_area,
    "rsna_breast": probabilistic_f1,
    "rsna_hemorrhage": lambda y, p: float(
        np.average([metrics.log_loss(a, b) for a, b in zip(y.T, p.T, strict=True)], weights=[2, *[1] * 5])
    ),
    "plant2021": lambda y, p: float(metrics.f1_score(y, p >= 0.5, average="samples", zero_division=1)),
    "hpa": lambda y, p: float(metrics.f1_score(y, p >= 0.5, average="macro")),
}
# Of several answers an image: their truth and what is said by name, as hosts' own files have it.
SEVERAL: dict[str, Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], float]] = {"bengali": bengali}
NUMBERS: dict[str, Grader] = {"petfinder": lambda y, v: float(np.sqrt(((y - v) ** 2).mean()))}
ONE = ("alaska2", "cactus", "histopathologic", "iceberg", "melanoma", "rsna_breast", "rsna_miccai", "seti")
COLUMNS = {"rsna_hemorrhage": 6, "rsna2022": 8} | dict.fromkeys(ONE, 1)  # else 4


def test_every_known_competition_has_a_grader_here() -> None:
    assert {*SINGLE, *MULTI, *NUMBERS, *SEVERAL, "rsna2024", "sample"} == set(format_presets("classification"))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_answers_are_scored_as_their_competition_does(name: str, tmp_path: Path) -> None:
    config = load_config([CONFIGS / f"classification_{name}.yaml"], [f"data.dir={tmp_path}"])
    assert isinstance(config, TaskConfig)
    rng, targets = np.random.default_rng(1), list(config.format.targets)
    truth, said = ({name: rng.integers(0, 4 + k, 40) for k, name in enumerate(targets)} for _ in range(2))
    said[targets[0]] = np.where(rng.random(40) < 0.5, truth[targets[0]], 9)  # 9 is never true, yet it is learnt
    pd.DataFrame({"image_id": [f"i{k}" for k in range(40)], **truth}).to_csv(tmp_path / "solution.csv", index=False)
    head = pd.DataFrame({"image_id": ["t"], **{name: [9] for name in targets}})
    pd.concat(
        [head, pd.DataFrame({"image_id": [f"i{k}" for k in range(10)], **dict.fromkeys(targets, range(10))})]
    ).to_csv(tmp_path / "train.csv", index=False)
    order = rng.permutation(40)
    rows = [f"i{k}_{name},{said[name][k]}" for k in order for name in sorted(targets)]
    (tmp_path / "sample_submission.csv").write_text("\n".join(["row_id,target", *rows, ""]))
    classes = read_table(config).classes
    solution = read_table(with_classes(config, classes), tmp_path / "solution.csv")
    handed_in = list(read_submission(tmp_path / "sample_submission.csv", config, classes, {}))
    found = [evidence(answer, solution.target(int(one[1:]), 9, 9), config.metrics) for one, answer in handed_in]
    assert scores(found, config.metrics, 0)[config.metrics[0]] == pytest.approx(SEVERAL[name](truth, said))


@pytest.mark.parametrize("name", [*SINGLE, *MULTI, *NUMBERS])
def test_a_config_is_scored_as_its_competition_does(name: str) -> None:
    config = load_config([CONFIGS / f"classification_{name}.yaml"])
    assert isinstance(config, TaskConfig)
    rng, metric = np.random.default_rng(1), config.metrics[0]
    if name in SINGLE:
        truth, said = rng.integers(0, 9, 60), rng.random((60, 9))
        said /= said.sum(axis=1, keepdims=True)
        assert single(truth, said, metric) == pytest.approx(SINGLE[name](truth, said))
        return
    width = COLUMNS.get(name, 4)
    if name in NUMBERS:
        truth, said = rng.uniform(1, 100, (30, 1)), rng.uniform(1, 100, (30, 1))
        assert numbers(truth, said, metric) == pytest.approx(NUMBERS[name](truth, said))
        return
    truth, said = rng.integers(0, 2, (60, width)), rng.uniform(0.01, 0.99, (60, width))
    given = [float(weight) for weight in config.format.class_weights.values()]
    weights = {"class_weights": np.array([*given, *[1.0] * (width - len(given))])} if given else {}
    is_decision = config.format.submission.value == "decision"
    answers = [{"probabilities": p, "labels": p >= 0.5} | ({"is_decision": True} if is_decision else {}) for p in said]
    each = [evidence(a, {"labels": y > 0, **weights}, [metric]) for a, y in zip(answers, truth, strict=True)]
    assert scores(each, [metric], width)[metric] == pytest.approx(
        MULTI[name](truth, said), abs=1e-4 if name == "alaska2" else 1e-9
    )

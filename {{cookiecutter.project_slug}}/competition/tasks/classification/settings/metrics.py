"""Which metrics are taken where `metrics:` says none, and which cannot score a format."""

from competition.tasks.classification.metrics_together import TOGETHER
from competition.tasks.classification.settings.format import ClassificationFormat
from competition.tasks.classification.settings.metric_names import LOWER_IS_BETTER, MEANS, METRICS


def usual_metrics(form: ClassificationFormat) -> list[str]:
    """Return metrics of one answer an image that it can be scored by."""
    if form.target == "regression":
        return ["rmse", "mae"]
    return ["map5", "accuracy"] if form.submission.layout == "top" else ["macro_f1", "accuracy", "log_loss"]


def metric_of(form: ClassificationFormat, name: str) -> str:
    """Return the metric of one of several targets."""
    return form.targets[name].metric or usual_metrics(form.each[name])[0]


def mean_of(form: ClassificationFormat) -> list[str]:
    """Return the mean of the targets' metrics, and each of them."""
    counted = [metric_of(form, name) for name, target in form.targets.items() if target.counts]
    mean = "mean_loss" if counted and counted[0] in LOWER_IS_BETTER else "mean"
    return [mean, *(f"{name}/{metric_of(form, name)}" for name in form.targets)]


def check_metrics_of_several(form: ClassificationFormat, metrics: list[str]) -> None:
    """Raise ValueError where one of the metrics cannot score `format.targets`."""
    for name in form.targets:
        check_metric(form.each[name], metric_of(form, name), f"format.targets.{name}.target")
    for metric in metrics:
        name, _, own = metric.partition("/")
        if name in form.targets and own in METRICS:
            check_metric(form.each[name], own, f"format.targets.{name}.target")
        elif metric in MEANS:
            _check_mean(form, metric)
        elif metric in TOGETHER:
            _check_together(form, metric)
        else:
            raise ValueError(
                f"{metric} cannot score format.targets; expected mean or mean_loss, and metrics of each, as "
                f"{mean_of(form)[1]}, or null for {', '.join(mean_of(form))}"
            )


def _check_mean(form: ClassificationFormat, mean: str) -> None:
    """Raise ValueError where the metrics that are to be averaged are better in different directions."""
    words = {True: "lower", False: "higher"}
    for name, target in form.targets.items():
        metric = metric_of(form, name)
        if target.counts and (metric in LOWER_IS_BETTER) != (mean in LOWER_IS_BETTER):
            raise ValueError(
                f"{mean} is of metrics of which {words[mean in LOWER_IS_BETTER]} is better, and of "
                f"format.targets.{name}.metric {metric} {words[metric in LOWER_IS_BETTER]} is; give all targets of "
                f"score_weight over 0 metrics of one kind, or name the one that counts, as metrics: [{name}/{metric}]"
            )


def _check_together(form: ClassificationFormat, metric: str) -> None:
    """Raise ValueError where targets that count are none that a metric of all of them takes."""
    together = TOGETHER[metric]
    for name, target in form.targets.items():
        if target.counts and not together.takes(name, target.target, target.classes):
            raise ValueError(
                f"{metric} is of {together.words}, and format.targets.{name} is none by its name, target and classes; "
                "give it score_weight: 0, or take another metric"
            )


def check_metric(form: ClassificationFormat, metric: str, key: str) -> None:
    """Raise ValueError where a metric cannot score a format of one answer."""
    if form.target not in METRICS[metric].of:
        usable = ", ".join(name for name, one in METRICS.items() if form.target in one.of)
        raise ValueError(f"{metric} cannot score {key} {form.target}; expected some of {usable}")
    if metric == "group_roc_auc" and form.score_by is None:
        raise ValueError("group_roc_auc needs format.score_by: the column of train.csv whose values are groups")
    if form.submission.layout == "top" and METRICS[metric].of_probabilities and metric != "map5":
        raise ValueError(f"{metric} needs probabilities, and format.submission.layout top hands in none")

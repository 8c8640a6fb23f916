"""What `checkpoint.monitor` names: the value by which an epoch is the best and a training stops early. No torch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from competition.config.faults import nearest, show
from competition.config.settings import Config, Mode
from competition.support.errors import CompetitionError
from competition.tasks.contract import Evidence, Target
from competition.tasks.host_metric import HOST, score_by_host
from competition.tasks.user_metrics import lower_is_better

LOSS = "val/loss"
HOST_MONITOR = "val/host_metric"  # computed where it is monitored


def better_mode(config: Config) -> Mode:
    """Return whether the lower ("min") or the higher value of what is monitored is the better one."""
    kept = config.checkpoint
    if kept.mode is not None:
        return kept.mode
    if kept.monitor == HOST_MONITOR and config.host_metric is not None:
        return "min" if config.host_metric.lower_is_better else "max"
    is_loss = kept.monitor == LOSS
    return "min" if is_loss or lower_is_better(config, kept.monitor.removeprefix("val/")) else "max"


def host_evidence(config: Config, image_id: str, height: int, width: int, answer: Target) -> Evidence:
    """Return what the host's metric needs to know of an image, where it is monitored."""
    if config.checkpoint.monitor != HOST_MONITOR:
        return {}
    from competition.support.distributed import packed

    return {"answer": packed((image_id, height, width, answer))}


def host_results(
    config: Config, classes: Sequence[str], evidence: Sequence[Evidence], truth: Callable[[str, int, int], Target]
) -> dict[str, float]:
    """Return the host's score of the answers of `host_evidence`, where it is monitored."""
    if config.checkpoint.monitor != HOST_MONITOR:
        return {}
    from competition.support.distributed import unpacked

    answers: list[tuple[str, int, int, Target]] = [unpacked(one["answer"]) for one in evidence]
    found = ((image_id, answer) for image_id, _, _, answer in answers)
    true = ((image_id, truth(image_id, height, width)) for image_id, height, width, _ in answers)
    return {"host_metric": score_by_host(config, classes, found, true)[HOST]}


def best_row(rows: Iterable[Mapping[str, str]], config: Config) -> Mapping[str, str] | None:
    """Return the row of metrics.csv with the best monitored value, the first of equal ones; None where none has one."""
    monitor, sign = config.checkpoint.monitor, 1 if better_mode(config) == "min" else -1
    known = [row for row in rows if row.get(monitor) and math.isfinite(float(row[monitor]))]
    return min(known, key=lambda row: sign * float(row[monitor]), default=None)


def refuse_unknown_monitor(config: Config) -> None:
    """Raise CompetitionError where validation will not compute what is monitored: better now than after an epoch."""
    known = [LOSS, *(f"val/{name}" for name in config.metric_names), *([HOST_MONITOR] if config.host_metric else [])]
    found = config.checkpoint.monitor
    if found not in known:
        if found == HOST_MONITOR:
            raise CompetitionError(
                f"checkpoint.monitor: found {found}, but there is no host_metric: FILE to compute it"
            )
        near = nearest(found, known)
        hint = f"; did you mean {near}?" if near else ""
        raise CompetitionError(
            f"checkpoint.monitor: found {show(found)}; expected {LOSS} or val/ and one of `metrics:`, here "
            f"{', '.join(known[1:])}{hint}"
        )

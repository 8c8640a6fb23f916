"""What `data.batch_size: auto` has found for a run, and what becomes of its learning rate. No torch.

All folds and seeds of a run, and those that go on elsewhere, keep to the first one's.
"""

from pathlib import Path

from competition.config.loading import dump_yaml
from competition.config.optimizer_settings import Optimizer
from competition.config.settings import Config
from competition.runs.folder import read_own_yaml
from competition.support.atomic_files import marked, replacing
from competition.support.errors import CompetitionError

FOUND = "batch_size.yaml"


def settled(config: Config) -> Config:
    """Return the config with the batch that was found for its run; as it is where none was yet, or none is asked."""
    path = config.run_folder / FOUND
    if not config.data.finds_batch_size or not path.is_file():
        return config
    size = read_own_yaml(path, way_on := f"delete it, and {config.run_folder}/fold*").get("batch_size")
    if not isinstance(size, int) or size < 1:
        raise CompetitionError(f"{path}: damaged (batch_size is {size!r}); {way_on}")
    data = config.data.model_copy(update={"batch_size": size, "finds_batch_size": False})
    rate = config.optimizer.lr * rate_factor(config.optimizer, size)
    optimizer = config.optimizer.model_copy(update={"lr": float(f"{rate:.4g}")})
    return config.model_copy(update={"data": data, "optimizer": optimizer})


def rate_factor(settings: Optimizer, size: int) -> float:
    """Return what the learning rate is multiplied by for a batch of another size than `optimizer.lr_batch_size`.

    That is the ratio of the sizes for plain gradient descent (Goyal et al. 2017), its root for optimizers that divide
    by what gradients were like (Malladi et al. 2022).
    """
    if settings.lr_batch_size is None:
        return 1.0
    return (size / settings.lr_batch_size) ** (1.0 if is_plain(settings) else 0.5)


def is_plain(settings: Optimizer) -> bool:
    """Return whether an optimizer's step grows with the gradient."""
    return settings.name.lower().removeprefix("schedulefree_") in ("sgd", "momentum", "nesterov", "nesterovsgd")


def remember_batch_size(config: Config, size: int, how: str) -> Path:
    """Write what was found, and how, into the run's folder."""
    path = config.run_folder / FOUND
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(marked(dump_yaml({"batch_size": size, "found": how})), encoding="utf-8")
    return path

"""The LightningModule of every task: what one step does, how the score of the whole validation set is made."""

from typing import Any, Self

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from competition.config.loading import validate
from competition.config.settings import Config, with_classes
from competition.data.dataset import Batch, ready, seed_everywhere
from competition.data.window_dataset import WholeImages
from competition.networks.beside import beside
from competition.networks.encoder import save_memory
from competition.networks.lora import add_adapters
from competition.support.distributed import gather_by_image
from competition.support.errors import CompetitionError
from competition.tasks.contract import Evidence, Task
from competition.tasks.user_losses import add_losses
from competition.tasks.user_metrics import evidence_of, scores_of
from competition.training.fold_data import FoldData
from competition.training.freezing import Frozen
from competition.training.monitor import better_mode, host_evidence, host_results
from competition.training.optimizer import build_optimizer
from competition.training.schedule import learning_rate_factor, observe


class CompetitionModule(pl.LightningModule):
    """A network with its loss, schedule and score. Hyper-parameters are plain values, so checkpoints load safely."""

    def __init__(self, config: dict[str, Any], classes: list[str]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config: Config = validate(config, {}, "checkpoint")
        self.task = Task(self.config.task)
        self.classes = classes
        self.network = _build_network(self.config, classes)
        self.frozen = Frozen(self.network, self.config.model)
        self.frozen.rest()  # Lightning keeps the mode that modules come in
        self._start_validation()

    def _start_validation(self) -> None:
        self._evidence: dict[str, Evidence] = {}
        self._losses: dict[str, list[float]] = {}  # of an image's windows
        self._images = WholeImages(self.task)
        self._monitored: float | None = None  # of a validation in this epoch

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.frozen.rest()
        return self

    def forward(self, batch: Batch) -> Any:
        """Map a batch's images (B, channels, H, W), and what the network is told beside them, to the task's outputs."""
        return self.network(batch["image"], **beside(batch))

    def image_losses(self, batch: Batch) -> Tensor:
        """Return (B,) losses of a batch, one an image."""
        return self._losses_of(self(batch), batch)

    def _losses_of(self, outputs: Any, batch: Batch) -> Tensor:
        own = self.task.loss.image_losses(self.network, outputs, batch, self.config)
        losses = add_losses(own, self.config.loss.files, outputs, batch)
        return losses * batch["weight"].to(losses.dtype) if "weight" in batch else losses

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the batch's part of the mean loss of a step's images, whatever processes and batches these are in."""
        data = self._data()
        losses = self.image_losses(data.mixed(self.ready(batch), self.current_epoch, batch_index))
        loss = losses.mean()
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True, batch_size=len(losses))
        # Lightning divides by the accumulated batches and takes the mean of the processes, as if all were of one size.
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return loss * (len(losses) * parts / data.batches().of_epoch(self.current_epoch).images)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Note each image's loss and what its metrics need; gathered later, as ranks may have unequal batches."""
        batch = self.ready(batch)
        outputs = self(batch)
        losses = self._losses_of(outputs, batch)
        predictions = self.task.prediction.predictions(self.network, outputs, batch)
        for image_id, loss in zip(batch["image_id"], losses.detach().cpu().double().tolist(), strict=True):
            self._losses.setdefault(image_id, []).append(loss)
        data = self._data()
        for image_id, height, width, prediction in self._images.add(batch, predictions):
            answer = self.task.decode.decode(prediction, height, width, self.config)
            truth = data.truth(image_id, height, width)
            evidence = evidence_of(self.config, answer, truth)
            evidence |= {"loss": np.array(np.mean(self._losses.pop(image_id)))}
            self._evidence[image_id] = evidence | host_evidence(self.config, image_id, height, width, answer)

    def on_validation_epoch_end(self) -> None:
        """Score the whole set once: the same number on any number of processes and for any batch size."""
        gathered = gather_by_image(self._evidence)
        self._start_validation()
        if not gathered:
            raise CompetitionError(
                "trainer.limit_val_batches: no image was seen whole, as data.window cuts it into more windows than the "
                "batches hold; raise it"
            )
        results = {"loss": sum(float(one["loss"]) for one in gathered) / len(gathered)}
        results |= scores_of(self.config, gathered, len(self.classes))
        results |= host_results(self.config, self.classes, gathered, self._data().truth)
        self._monitored = results.get(self.config.checkpoint.monitor.removeprefix("val/"))
        self.log_dict({f"val/{name}": value for name, value in results.items()}, prog_bar=True)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer; raise CompetitionError where it cannot be had."""
        return build_optimizer(self.network, self.config.optimizer, self.frozen.learn_later)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and a schedule that moves with every optimizer step."""
        optimizer = self.build_optimizer()
        # Lightning's own estimate takes the length of the first epoch for all.
        factor = learning_rate_factor(self.config.scheduler, sum(epoch.steps for epoch in self._data().plan()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what the step draws (dropout, ...) by run, epoch, batch and rank: a resumed run draws the same."""
        self.frozen.thaw_if_due(self.trainer, self)
        self._data().begin_batch(batch_idx)
        place = [self.config.seed, self.current_epoch, batch_idx, self.global_rank]
        seed_everywhere(int(np.random.SeedSequence(place).generate_state(1)[0]), self.device)

    def on_train_epoch_end(self) -> None:
        """Tell data and schedule before the epoch is saved, as Lightning calls what saves after this."""
        self._data().end_epoch()
        schedule = self.lr_schedulers()
        assert isinstance(schedule, LambdaLR)
        if self._monitored is not None:
            observe(schedule, self._monitored, better_mode(self.config))
        self._monitored = None

    def ready(self, batch: Batch) -> Batch:
        """Return a batch with the images that the network sees."""
        # Not in on_after_batch_transfer, of which Lightning warns where there is a LightningDataModule.
        return ready(batch, self.config, next(self.network.parameters()).dtype)

    def show(self, batch: Batch) -> None:
        """Pass a batch through the network as a validation does, for what its parts take note of."""
        batch = self.trainer.strategy.batch_to_device(batch)
        with self.trainer.precision_plugin.val_step_context():
            self(self.ready(batch))

    def _data(self) -> FoldData:
        data = getattr(self.trainer, "datamodule")  # noqa: B009 - Lightning sets it without declaring it
        assert isinstance(data, FoldData)
        return data


def _build_network(config: Config, classes: list[str]) -> nn.Module:
    """Return the task's network, with what `model:` asks for beside its architecture."""
    network = Task(config.task).model.build_network(with_classes(config, classes), len(classes))
    if config.model.gradient_checkpointing:
        save_memory(network)
    if config.model.lora is not None:
        add_adapters(network, config)
    if config.model.channels_last:
        network.to(memory_format=torch.channels_last)  # images follow: the first convolution turns them
    return network

"""The network: any classifier of timm; where it looks at more than pixels, its features and what is joined to them."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from competition.networks.columns import ColumnJoin
from competition.networks.encoder import drop_path_arguments, note_encoder, num_features, size_arguments
from competition.networks.group_join import GroupJoin
from competition.networks.pooling import GEM, pool_by_mean_of_powers
from competition.networks.pretrained import check_encoder, load_pretrained, note_weights, weights_note
from competition.networks.volume import channels_of, see_volume
from competition.support.errors import CompetitionError
from competition.tasks.classification.metric_head import MetricHead, put_metric_head
from competition.tasks.classification.prediction import activation_of
from competition.tasks.classification.settings import TaskConfig


def build_network(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network from images (B, channels, H, W) to logits (B, classes), or numbers (B, columns).

    What makes predictions of them goes with it as `activation_of_answers`, which has no weights.
    """
    network = JoinedNetwork(config, num_classes) if joins_anything(config) else build_encoder(config, num_classes)
    network.add_module("activation_of_answers", activation_of(config))
    return network


def build_encoder(config: TaskConfig, num_classes: int) -> nn.Module:
    """Return a network of timm with the weights it begins with; of no classes one that ends with the features."""
    model, size, channels = config.model, config.data.image_size, channels_of(config.model, config.data)
    check_encoder(model.encoder)
    arguments = encoder_arguments(config)
    try:
        network = timm.create_model(
            model.encoder,
            pretrained=False,
            num_classes=num_classes,
            in_chans=channels,
            drop_rate=model.dropout,
            **arguments,
        )
    except (AssertionError, TypeError, ValueError, RuntimeError):
        if "global_pool" not in arguments:
            raise
        raise CompetitionError(
            f"model.pool: {model.encoder} cannot pool by {model.pool!r}; expected avg, max, avgmax, catavgmax or gem "
            "of convolutions, token, avg, map or max of transformers"
        ) from None
    see_volume(network, model, config.data)
    note_weights(network, load_pretrained(network, model, channels, "classifier", size))
    if num_classes and model.head != "linear":
        put_metric_head(network, num_classes, model)
    if model.pool == GEM:
        pool_by_mean_of_powers(network, model.encoder)
    note_encoder(network, "", model.encoder)
    return network


def encoder_arguments(config: TaskConfig) -> dict[str, Any]:
    """Return what a network of timm is built with beside channels and classes."""
    model = config.model
    arguments: dict[str, Any] = size_arguments(model.encoder, config.data.image_size)
    arguments |= drop_path_arguments(model.encoder, model.drop_path)
    if model.pool is not None and model.pool != GEM:
        arguments["global_pool"] = model.pool
    return arguments


def joins_anything(config: TaskConfig) -> bool:
    """Return whether the network looks at more than an image's own pixels."""
    return config.data.columns is not None or config.model.join is not None or config.model.volume


class JoinedNetwork(nn.Module):
    """Encoder, features of an image, what is joined to them, features of a group of images, classifier."""

    def __init__(self, config: TaskConfig, num_classes: int) -> None:
        super().__init__()
        self.encoder = build_encoder(config, 0)
        size = num_features(config.model.encoder, encoder_arguments(config))
        self.columns = None
        if config.data.columns is not None:
            self.columns = ColumnJoin(config.data.columns, size, config.model.join_columns)
            size = self.columns.num_features
        self.group = None if config.model.join is None else GroupJoin(config.model.join, size)
        self.at_once = config.data.batch_size  # images, where nothing is kept for a backward pass
        self.classifier = build_head(config, size, num_classes)
        note_encoder(self, "encoder", config.model.encoder)
        note_weights(self, weights_note(self.encoder))

    def forward(self, images: Tensor, group_sizes: Tensor | None = None, **columns: Tensor) -> Tensor:
        """Map images (N, channels, H, W), and what columns say of them, to logits (N, classes), (groups, classes)."""
        return self.classifier(self.features(images, group_sizes, **columns))

    def features(self, images: Tensor, group_sizes: Tensor | None = None, **columns: Tensor) -> Tensor:
        """Return (N, F), or (groups, F), what the classifier looks at."""
        parts = [images] if torch.is_grad_enabled() else images.tensor_split(-(-len(images) // self.at_once))
        features = torch.cat([self.encoder(part) for part in parts])
        if self.columns is not None:
            features = self.columns(features, **columns)
        return features if self.group is None else self.group(features, group_sizes)


def build_head(config: TaskConfig, num_features: int, num_classes: int) -> nn.Module:
    """Return what maps features (B, F) of an image, or of a group, to logits (B, classes)."""
    if config.model.head == "linear":
        return nn.Linear(num_features, num_classes)
    return MetricHead(num_features, num_classes, config.model)

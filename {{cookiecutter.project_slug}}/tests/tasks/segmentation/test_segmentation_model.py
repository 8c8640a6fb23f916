"""The segmentation network and its loss: shapes, images that do not touch each other, weights from a file."""

import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from competition.config.data_settings import Data
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.loss import dice_losses, image_losses
from competition.tasks.segmentation.model import build_network
from competition.tasks.segmentation.prediction import predictions
from competition.tasks.segmentation.settings import SegmentationLoss, SegmentationModel, TaskConfig

ARCHITECTURES = get_args(SegmentationModel.model_fields["architecture"].annotation)


def config(channels: int = 3, loss: SegmentationLoss | None = None, **model: Any) -> TaskConfig:
    return TaskConfig(
        name="t",
        task="segmentation",
        data=Data(channels=channels, mean=[0.5] * channels, std=[0.2] * channels),
        model=SegmentationModel.model_validate({"encoder": "test_resnet"} | model),
        loss=loss or SegmentationLoss(),
    )


def network_of(made: TaskConfig, num_classes: int) -> nn.Module:
    return build_network(made, num_classes).eval()


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_logits_of_the_images_size(architecture: str) -> None:
    height, width = (128, 192) if architecture == "pan" else (64, 96)  # which halves the last features thrice
    logits = network_of(config(architecture=architecture), 3)(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 3, height, width)
    assert logits.isfinite().all()


PUBLISHED = {"pspnet": 512, "pan": 32}  # channels of the widest stage, where these are not 256


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "linknet"])
def test_decoders_are_as_published_or_as_wide_as_asked_for(architecture: str) -> None:
    made = [
        network_of(config(architecture=architecture, decoder_channels=width), 3)
        for width in (None, PUBLISHED.get(architecture, 256), 64)
    ]
    published, same, other = ({name: value.shape for name, value in one.state_dict().items()} for one in made)
    assert same == published != other
    of_encoder = [name for name in published if name.startswith("encoder.")]
    assert [other[name] for name in of_encoder] == [published[name] for name in of_encoder]
    sizes = [sum(shape.numel() for name, shape in one.items() if "decoder" in name) for one in (published, other)]
    most = {"manet": 0.8, "deeplabv3": 0.6, "pan": 3}.get(architecture, 0.5)  # what has the encoder's widths keeps them
    assert sizes[1] < most * sizes[0]
    with torch.no_grad():
        assert made[2](torch.randn(2, 3, 128, 192)).shape == (2, 3, 128, 192)


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["tu-test_resnet", "test_efficientnet", "mobilenet_v2"])
@pytest.mark.parametrize("channels", [1, 4])
def test_encoders_take_any_number_of_channels(encoder: str, channels: int) -> None:
    logits = network_of(config(channels, encoder=encoder), 1)(torch.randn(2, channels, 64, 64))
    assert logits.shape == (2, 1, 64, 64)


def test_the_loss_of_a_batch_is_that_of_its_images_one_by_one() -> None:
    made = config()
    network = network_of(made, 2).double()  # in float32, last digits hang on batch size and CPU
    images, masks = torch.randn(5, 3, 64, 64).double(), torch.randint(0, 2, (5, 2, 64, 64), dtype=torch.uint8)
    masks[1] = 0
    with torch.no_grad():
        together = image_losses(network, network(images), {"mask": masks}, made)
        alone = [image_losses(network, network(images[i : i + 1]), {"mask": masks[i : i + 1]}, made) for i in range(5)]
    assert together.shape == (5,)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_dice_loss_by_hand() -> None:
    mask = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    sure = (mask - 0.5) * 200
    torch.testing.assert_close(dice_losses(sure, mask), torch.zeros(2))  # right, the empty mask included
    # Half a probability everywhere: overlap 1, sums 2 and 2: 1 - (2 + 1) / (4 + 1); nothing there: 1 - 1 / (2 + 1).
    torch.testing.assert_close(dice_losses(torch.zeros(2, 1, 1, 4), mask), torch.tensor([2 / 5, 2 / 3]))


def test_losses_add_up_by_their_weights() -> None:
    logits, masks = torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 1, 8, 8))

    def loss(bce: float, dice: float) -> Tensor:
        return image_losses(nn.Identity(), logits, {"mask": masks}, config(loss=SegmentationLoss(bce=bce, dice=dice)))

    torch.testing.assert_close(loss(2, 3), 2 * loss(1, 0) + 3 * loss(0, 1))


def test_a_step_of_training_leaves_everything_finite() -> None:
    made = config()
    network = build_network(made, 4).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for mask in (torch.zeros(2, 4, 64, 64), torch.ones(2, 4, 64, 64)):
        loss = image_losses(network, network(torch.randn(2, 3, 64, 64)), {"mask": mask}, made).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_predictions_are_probabilities_at_half_precision() -> None:
    rows = predictions(nn.Identity(), torch.tensor([[[[-100.0, 0.0, 100.0]]]]), {})
    assert [row["probabilities"].tolist() for row in rows] == [[[[0.0, 0.5, 1.0]]]]
    assert rows[0]["probabilities"].dtype.name == "float16"


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """Weights of an encoder that segmentation-models-pytorch brings itself, with another model's head."""
    torch.manual_seed(1)
    state = smp.encoders.get_encoder("mobilenet_v2", weights=None).state_dict()
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pt"
    torch.save({"state_dict": state | {"classifier.1.weight": torch.zeros(1000, 1280)}}, path)
    return path, state


def test_local_weights_load_into_an_own_encoder(own_weights: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = own_weights
    network = build_network(config(encoder="mobilenet_v2", pretrained=str(path)), 2)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[f"encoder.{name}"], value) for name, value in state.items())


def test_weights_of_another_own_encoder_are_refused_in_a_line(own_weights: tuple[Path, dict[str, Tensor]]) -> None:
    path, _ = own_weights
    with pytest.raises(CompetitionError, match=r"mobilenet\.pt: 0 of 100 tensors of resnet18 fit") as caught:
        build_network(config(encoder="resnet18", pretrained=str(path)), 2)
    assert "\n" not in str(caught.value)


def test_local_weights_load_for_other_numbers_of_channels(own_weights: tuple[Path, dict[str, Tensor]]) -> None:
    network = build_network(config(1, encoder="mobilenet_v2", pretrained=str(own_weights[0])), 2)
    assert network(torch.randn(2, 1, 64, 64)).isfinite().all()


def test_local_weights_of_a_timm_encoder_load_without_a_warning(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_network(config(pretrained=str(tmp_path / "weights.pt")), 2)

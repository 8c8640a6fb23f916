"""What this machine computes on: which devices, whether torch has kernels for them, which half precision."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from competition.config.settings import Config
from competition.support.errors import CompetitionError


def refuse_gpus_without_kernels(config: Config) -> None:
    """Raise CompetitionError where the installed torch has no kernels for a GPU that would be used.

    torch itself finds out at the first kernel, after all data has been read. Of several processes the first one looks.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    for device in inference_devices(config):
        if device.type != "cuda" or not _is_asked_for(device.index, config.trainer.get("devices")):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own say the same in ten lines
            capability, name = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
        if not has_kernels(capability, built := torch.cuda.get_arch_list()):
            raise CompetitionError(
                f"GPU {device.index} ({name}) is sm_{capability[0]}{capability[1]}: torch {torch.__version__} has no "
                f"kernels for it, only for {', '.join(built)}; take another GPU (on Kaggle: T4 x2), a torch that was "
                "built for it, or trainer.accelerator=cpu"
            )


def _is_asked_for(index: int, devices: Any) -> bool:
    """Return whether `trainer.devices` takes a GPU: a number takes the first ones, a list those, all else every one."""
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, int) and not isinstance(devices, bool) and devices >= 0:
        return index < devices
    if isinstance(devices, str) and "," in devices:  # as on Lightning's own command line
        devices = [int(one) for one in devices.split(",") if one.strip()]
    return index in devices if isinstance(devices, list) else True


def has_kernels(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Return whether code built for architectures (`sm_75`, `compute_90`, ...) runs on a GPU of a compute capability.

    Machine code runs on GPUs of the same major version that are no older, `compute_`, which is compiled when it is
    loaded, on all that are no older (CUDA programming guide, "Application compatibility").
    """
    for name in built:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")  # of code for one GPU alone, or for its family
        if kind not in ("sm", "compute") or not digits.isdigit():
            return True  # of another maker
        oldest = int(digits[:-1]), int(digits[-1])
        if oldest <= capability and (kind == "compute" or oldest[0] == capability[0]):
            return True
    return False


def precision_here(name: str) -> str:
    """Return what `half` is on this machine, any other name of a precision as it is.

    That is bf16, which needs no scaling of the loss, but for GPUs that only emulate it, as T4 and P100 do, slowly.
    """
    if name != "half":
        return name
    is_emulated = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "16-mixed" if is_emulated else "bf16-mixed"


def inference_device(config: Config) -> torch.device:
    """Return the GPU, unless there is none or `trainer.accelerator` says cpu."""
    return inference_devices(config)[0]


def inference_devices(config: Config) -> list[torch.device]:
    """Return all GPUs of the machine, or the CPU where there is none or `trainer.accelerator` says cpu."""
    is_cpu = str(config.trainer.get("accelerator", "auto")) == "cpu" or not torch.cuda.is_available()
    return [torch.device("cpu")] if is_cpu else [torch.device("cuda", at) for at in range(torch.cuda.device_count())]

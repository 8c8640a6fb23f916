"""Random changes of training images, and resizing: the only module that knows albumentations."""

import math
import os
import random
import warnings
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it looks for updates online when imported

import albumentations as A
import cv2
import numpy as np

from competition.config.data_settings import Augmentation, Data
from competition.tasks.contract import Target

NEAREST = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST moves a mask by up to half a pixel of the larger image
MIN_VISIBLE = 0.2  # a box of which a crop leaves less than this share is dropped
STRETCH = 4 / 3  # of a crop's shape, at most
USUAL = (1, 99)  # percentiles of an image's values between which its range lies: a hot pixel is none of it
SAMPLED_SIDE = 64  # pixels, at least, of the shorter side that the range is told from


@dataclass(frozen=True)
class Resized:
    """An image that was made as large as the network sees it before; `height` and `width` are those of its file."""

    pixels: np.ndarray
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width, in which its masks and boxes are."""
        return self.height, self.width


class ImageAugmentation:
    """Turns an image as it was read into one of `data.image_size`, not normalised yet; masks and boxes follow.

    With `train` the random changes of `data.augmentation` are among the steps.
    """

    def __init__(self, data: Data, *, train: bool) -> None:
        self.data = data
        self.train = train
        # By what `_build` takes: not functools.cache, which could not be sent to a process that is not a fork.
        self._pipelines: dict[bool, A.Compose] = {}

    def __call__(self, image: np.ndarray | Resized, target: Target, seed: int) -> tuple[np.ndarray, Target]:
        """Change an image (H, W, channels), uint8 or float32, and its target; the draw depends on `seed` alone.

        Returns (height, width, channels), uint8 or, where it was float32 or its light was changed, float32 in the
        image's own range, and the target with `mask` (and `ignored`) or `bboxes` at the same size.
        """
        if "ignored" in target:  # goes wherever the masks go
            both = np.concatenate([target["mask"], target["ignored"][:, :, None]], axis=2)
            rest = {key: value for key, value in target.items() if key != "ignored"}
            moved, changed = self(image, {**rest, "mask": both}, seed)
            return moved, {**changed, "mask": changed["mask"][:, :, :-1], "ignored": changed["mask"][:, :, -1]}
        done = image.pixels if isinstance(image, Resized) else None
        # To the steps before it is resized it is as large as its mask and boxes, and has no channel to look at.
        pixels = image if isinstance(image, np.ndarray) else np.empty((*image.shape, 0), image.pixels.dtype)
        with_boxes = "bboxes" in target
        if with_boxes not in self._pipelines:
            self._pipelines[with_boxes] = self._build(with_boxes=with_boxes)
        pipeline = self._pipelines[with_boxes]
        next(step for step in pipeline if isinstance(step, _Resize)).done = done
        # Its own generators repeat themselves in every worker and epoch, and could not be resumed. One pair for all
        # steps: `set_random_seed` would give each step the same numbers, and with them one change goes all others.
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        # Of the rest the library would take some for targets of its own, by their names.
        known = {name: target[name] for name in ("mask", "bboxes", "labels") if name in target}
        changed = pipeline(image=pixels, **known)
        return changed.pop("image"), {**target, **changed}

    @property
    def is_random_before_resizing(self) -> bool:
        """Return whether anything is done to an image first, so that it cannot be made smaller once and for all."""
        return any(step.p > 0 for step in self._before_resizing())

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H, W, channels) as large as the network sees it."""
        return _Resize(*self.data.image_size)(image=image)["image"]

    def _build(self, *, with_boxes: bool) -> A.Compose:
        height, width = self.data.image_size
        with warnings.catch_warnings():
            # albumentations only warns of a wrong argument and then goes on without it.
            warnings.simplefilter("error", UserWarning)
            steps = [
                *self._before_resizing(),
                _Resize(height, width, mask_interpolation=NEAREST),
                *(_random_changes(self.data.augmentation) if self.train else []),
            ]
            return A.Compose(steps, bbox_params=_box_settings() if with_boxes else None)

    def _before_resizing(self) -> list[A.BasicTransform]:
        """Return all that comes first: where there is any of it, `data.cache` keeps whole images for it."""
        if not self.train:
            return []
        window = _random_window(self.data.window_size) if self.data.window_size else []
        return window + _random_crop(self.data.augmentation, *self.data.image_size)


def _random_window(size: tuple[int, int]) -> list[A.BasicTransform]:
    """Cut out a window at full resolution; what is beyond the border of a smaller image is zero, as in prediction."""
    return [A.RandomCrop(*size, pad_if_needed=True, pad_position="top_left", border_mode=cv2.BORDER_CONSTANT)]


def _random_crop(settings: Augmentation, height: int, width: int) -> list[A.BasicTransform]:
    """Crop first: what follows then works on fewer pixels."""
    crop = settings.crop
    if crop is None:
        return []
    size, scale = (height, width), (crop.smallest, 1.0)
    return [_CropOfOwnShape(size, scale, p=crop.probability, mask_interpolation=NEAREST)]


class _CropOfOwnShape(A.RandomResizedCrop):
    """Cut out a share of the image's area, stretched by up to STRETCH from the image's own shape.

    The library's own ratio is that of a square: an image of 256 x 1600 has no such part of any size worth the name.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        draw = self.py_random
        share = draw.uniform(*self.scale)
        most = min(STRETCH, 1 / share)  # stretched more it would reach out of the image
        stretch = math.exp(draw.uniform(-math.log(most), math.log(most)))
        # Rounded up: `smallest` is a bound.
        rows = min(math.ceil(height * math.sqrt(share / stretch)), height)
        columns = min(math.ceil(width * math.sqrt(share * stretch)), width)
        top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
        return {"crop_coords": (left, top, left + columns, top + rows)}


class _Resize(A.Resize):
    """Make an image as large as the network sees it; where that was `done`, only its mask and boxes."""

    done: np.ndarray | None = None

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return super().apply(img, **params) if self.done is None else self.done


class _Light(A.RandomBrightnessContrast):
    """Shift and stretch the values of each channel by shares of the range that they have in this image.

    Values of a file need not fill what its type can hold (12 bit in 16, temperatures, z-scores): the library's own
    shares are of the type's range, beyond which it cuts off. Nothing is cut off here; the result is float32.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        draw = self.py_random
        return {"alpha": 1 + draw.uniform(*self.contrast_limit), "beta": draw.uniform(*self.brightness_limit)}

    def apply(self, img: np.ndarray, alpha: float, beta: float, **params: Any) -> np.ndarray:
        step = max(min(img.shape[:2]) // SAMPLED_SIDE, 1)
        low, high = np.percentile(img[::step, ::step], USUAL, axis=(0, 1)).astype(np.float32)
        # In rows: numpy is slow along an axis as short as that of channels, and with large arrays that are new.
        rows, width = img.reshape(len(img), -1), img.shape[1]
        changed = rows - np.tile(low, width)  # in float32 from here on
        changed *= np.float32(alpha)
        changed += np.tile(low + (high - low) * np.float32(beta), width)
        return changed.reshape(img.shape)


def _random_changes(settings: Augmentation) -> list[A.BasicTransform]:
    """Light before what moves the image: black that comes in from outside is none of its values, and stays black."""
    steps: list[A.BasicTransform] = [
        A.HorizontalFlip(p=settings.horizontal_flip),
        A.VerticalFlip(p=settings.vertical_flip),
    ]
    if light := settings.brightness_contrast:
        steps.append(_Light(light.brightness, light.contrast, p=light.probability))
    if affine := settings.shift_scale_rotate:
        steps.append(
            A.Affine(
                translate_percent=(-affine.shift, affine.shift),
                scale=(1 - affine.scale, 1 + affine.scale),
                rotate=(-affine.rotate, affine.rotate),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                p=affine.probability,
            )
        )
    return steps


def _box_settings() -> A.BboxParams:
    return A.BboxParams(
        "pascal_voc", label_fields=["labels"], min_visibility=MIN_VISIBLE, clip=True, filter_invalid_bboxes=True
    )

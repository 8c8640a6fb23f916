"""Random changes of training images, resizing and normalising: the only module that knows albumentations."""

import os
import warnings

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it looks for updates online when imported

import albumentations as A
import cv2
import numpy as np

from competition.data_settings import Augmentation, Data
from competition.task import Target

NEAREST = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST moves a mask by up to half a pixel of the larger image
MIN_VISIBLE = 0.2  # a box of which a crop leaves less than this share is dropped


class ImageAugmentation:
    """The way from a read image to a normalised one at `data.image_size`; masks and boxes follow.

    With `train` the random changes of `data.augmentation` are among the steps.
    """

    def __init__(self, data: Data, *, train: bool) -> None:
        self.data = data
        self.train = train
        # By what `_build` takes; not functools.cache, which could not be sent to a process that is not a fork.
        self._pipelines: dict[tuple[bool, bool], A.Compose] = {}

    def __call__(self, image: np.ndarray, target: Target, seed: int) -> tuple[np.ndarray, Target]:
        """Change an image (H, W, channels), uint8 or float32, and its target; the draw depends on `seed` alone.

        Returns float32 (height, width, channels) and the target with `mask` or `bboxes` at the same size.
        """
        key = "bboxes" in target, image.dtype == np.uint8
        if key not in self._pipelines:
            self._pipelines[key] = self._build(*key)
        pipeline = self._pipelines[key]
        # Its own generators repeat themselves in every worker and epoch, and could not be resumed.
        pipeline.set_random_seed(seed)
        changed = pipeline(image=image, **target)
        return changed.pop("image"), changed

    def _build(self, with_boxes: bool, is_8_bit: bool) -> A.Compose:
        height, width = self.data.image_size
        changes = self.data.augmentation
        with warnings.catch_warnings():
            # albumentations only warns of a wrong argument and then goes on without it.
            warnings.simplefilter("error", UserWarning)
            steps = [
                *(_random_window(self.data.window_size) if self.train and self.data.window_size else []),
                *(_random_crop(changes, height, width) if self.train else []),
                A.Resize(height, width, mask_interpolation=NEAREST),
                *(_random_changes(changes) if self.train else []),
                A.Normalize(tuple(self.data.mean), tuple(self.data.std), max_pixel_value=255.0 if is_8_bit else 1.0),
            ]
            return A.Compose(steps, bbox_params=_box_settings() if with_boxes else None)


def _random_window(size: tuple[int, int]) -> list[A.BasicTransform]:
    """Cut out a window at full resolution; what is beyond the border of a smaller image is zero, as in prediction."""
    return [A.RandomCrop(*size, pad_if_needed=True, pad_position="top_left", border_mode=cv2.BORDER_CONSTANT)]


def _random_crop(settings: Augmentation, height: int, width: int) -> list[A.BasicTransform]:
    """Crop first: what follows then works on fewer pixels."""
    crop = settings.crop
    if crop is None:
        return []
    return [
        A.RandomResizedCrop(
            (height, width),
            scale=(crop.smallest, 1.0),
            ratio=(0.75, 4 / 3),
            p=crop.probability,
            mask_interpolation=NEAREST,
        )
    ]


def _random_changes(settings: Augmentation) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = [
        A.HorizontalFlip(p=settings.horizontal_flip),
        A.VerticalFlip(p=settings.vertical_flip),
    ]
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
    if light := settings.brightness_contrast:
        steps.append(A.RandomBrightnessContrast(light.brightness, light.contrast, p=light.probability))
    return steps


def _box_settings() -> A.BboxParams:
    return A.BboxParams(
        "pascal_voc", label_fields=["labels"], min_visibility=MIN_VISIBLE, clip=True, filter_invalid_bboxes=True
    )

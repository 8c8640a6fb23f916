"""Random changes of training images, and resizing: this and named_steps.py know albumentations."""

import math
import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it looks for updates online when imported

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.geometric.functional import keypoints_scale, resize

from competition.config.data_settings import FIRST, Augmentation, Data
from competition.data.named_steps import KEY, build_steps, changes_values
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target

TAUGHT = "teacher"  # a map (H, W, classes) of what another run says, which goes wherever the masks go
NEAREST = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST moves a mask by up to half a pixel of the larger image
MIN_VISIBLE = 0.2  # a box of which a crop leaves less than this share is dropped
STRETCH = 4 / 3  # of a crop's shape, at most
USUAL = (1, 99)  # percentiles of an image's values between which its range lies: a hot pixel is none of it
OPENCV_CHANNELS = 128  # at most; it splits 129 into nothing and says nothing
AT_ONCE = 4  # channels that OpenCV moves in the least time each
AS_THEY_ARE = (1, AT_ONCE) if int(cv2.__version__.split(".")[0]) >= 5 else (1, 3, AT_ONCE)  # moved no faster otherwise
SAMPLED_SIDE = 64  # pixels, at least, of the shorter side that the range is told from


class FirstSize(NamedTuple):
    """As how large an image is made before anything random, the same in every epoch."""

    height: int
    width: int
    enlarges: bool = True  # if not, a side that is shorter stays as it is

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return what becomes of an image of so many pixels."""
        if self.enlarges:
            return self.height, self.width
        return min(self.height, height), min(self.width, width)


@dataclass(frozen=True)
class Resized:
    """An image that was made of its first size before; `height` and `width` are those of its file."""

    pixels: np.ndarray
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width, in which its masks and boxes are."""
        return self.height, self.width


class ImageAugmentation:
    """Turns an image as it was read into one of `data.image_size`, not normalised yet; masks, boxes, points follow.

    With `train` the random changes of `data.augmentation` are among the steps.
    """

    def __init__(self, data: Data, *, train: bool) -> None:
        self.data = data
        self.train = train
        # By what `_build` takes: not functools.cache, which could not be sent to a process that is not a fork.
        self._pipelines: dict[tuple[str | None, tuple[int, int]], A.Compose] = {}
        more = build_steps(data.augmentation.more) if train else []  # faults are told at once
        self._has_more, self._cuts_off = bool(more), changes_values(more)

    def __call__(
        self, image: np.ndarray | Resized, target: Target, seed: int, epoch: int | None = None
    ) -> tuple[np.ndarray, Target]:
        """Change an image (H, W, channels), uint8 or float32, and its target; the draw depends on `seed` alone.

        Training images may have another size in each epoch. Returns (height, width, channels), uint8 or, where it was
        float32 or its light was changed, float32 in the image's own range, and the target with `mask` (and `ignored`),
        `bboxes` or `keypoints` at the same size.
        """
        if "ignored" in target:  # goes wherever the masks go
            both = np.concatenate([target["mask"], target["ignored"][:, :, None]], axis=2)
            rest = {key: value for key, value in target.items() if key != "ignored"}
            moved, changed = self(image, {**rest, "mask": both}, seed, epoch)
            return moved, {**changed, "mask": changed["mask"][:, :, :-1], "ignored": changed["mask"][:, :, -1]}
        # albumentations counts points from the middle of the first pixel, all else here from its corner.
        if "keypoints" in target:
            moved, changed = self._change(image, {**target, "keypoints": target["keypoints"] - 0.5}, seed, epoch)
            return moved, _points_inside(changed, *moved.shape[:2])
        return self._change(image, target, seed, epoch)

    def _change(
        self, image: np.ndarray | Resized, target: Target, seed: int, epoch: int | None
    ) -> tuple[np.ndarray, Target]:
        if self._has_more:
            image = _writable(image)
        done = image.pixels if isinstance(image, Resized) else None
        if done is not None and "mask" in target and target["mask"].shape[:2] == done.shape[:2]:
            image, done = done, None  # its masks are, too: the first step leaves both as they are
        # To the steps before it is resized it is as large as its mask and boxes, and has no channel to look at.
        pixels = image if isinstance(image, np.ndarray) else np.empty((*image.shape, 0), image.pixels.dtype)
        places = next((name for name in PLACES if name in target), None)
        key = places, self.data.size_in(epoch) if self.train else self.data.image_size
        if key not in self._pipelines:
            self._pipelines[key] = self._build(*key)
        pipeline = self._pipelines[key]
        next(step for step in pipeline if isinstance(step, _Resize)).done = done  # the first is that of the first size
        # Its own generators repeat themselves in every worker and epoch, and could not be resumed. One pair for all
        # steps: `set_random_seed` would give each step the same numbers, and with them one change goes all others.
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        # Of the rest the library would take some for targets of its own, by their names.
        known = {name: target[name] for name in ("mask", TAUGHT, *PLACES, "labels") if name in target}
        if not self._has_more:
            changed = pipeline(image=pixels, **known)
        else:
            self._refuse_cutting_off(pixels if done is None else done)
            changed = self._change_more(pipeline, pixels, known)
        return changed.pop("image"), {**target, **changed}

    def _refuse_cutting_off(self, image: np.ndarray) -> None:
        if self._cuts_off and image.dtype != np.uint8 and not 0 <= image.min() <= image.max() <= 1:
            raise CompetitionError(
                f"{KEY}: its steps cut floats off at 0 and 1, and an image has {image.min():g} to {image.max():g}; "
                "keep to steps that move images, or store the images in 8 or 16 bit"
            )

    def _change_more(self, pipeline: A.Compose, image: np.ndarray, target: Target) -> Target:
        """Change an image by named steps, too, which say in one line what they cannot do."""
        try:
            return pipeline(image=image, **target)
        except CompetitionError:
            raise
        except Exception as error:  # each step has errors of its own
            raise CompetitionError(f"{KEY}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None

    @cached_property
    def first_size(self) -> FirstSize | None:
        """As how large an image can be made once and for all; none where something random is done to it as it was read,
        or it has several sizes."""
        if (shrunk := self._shrunk_size()) is not None:
            return shrunk
        is_random = any(step.p > 0 for step in self._before_resizing(*self.data.image_size))
        is_one_size = not (self.train and self.data.train_sizes)
        return FirstSize(*self.data.image_size) if is_one_size and not is_random else None

    def _shrunk_size(self) -> FirstSize | None:
        """Return how much of an image the crop needs, in whichever epoch; none where it takes its part of the whole."""
        crop = self.data.augmentation.crop
        if not self.train or crop is None or not crop.shrink_first:
            return None
        sizes = [size for _, size in self.data.train_sizes] or [self.data.image_size]
        least = math.sqrt(crop.smallest / _most_stretched(crop.smallest))
        return FirstSize(*(math.ceil(max(sides) / least) for sides in zip(*sizes, strict=True)), enlarges=False)

    def made_first(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H, W, channels) of its first size, if it has one."""
        size = self.first_size
        return image if size is None else self._resize(size)(image=image)["image"]

    def masks_made_first(self, masks: np.ndarray) -> np.ndarray:
        """Return masks (H, W, layers) as large as images of the first size, which there is."""
        assert self.first_size is not None
        return resize(masks, self.first_size.of(*masks.shape[:2]), NEAREST)

    def _resize(self, size: FirstSize) -> "_Resize":
        step = _Resize(size.height, size.width, mask_interpolation=NEAREST)
        step.each, step.first_size = self.data.file_channels, size
        return step

    def _more(self, *, first: bool) -> list[A.BasicTransform | A.BaseCompose]:
        """Return the named steps before or after resizing."""
        given = self.data.augmentation.more if self.train else []
        return build_steps(one for one in given if one.get(FIRST, False) == first)

    def _build(self, places: str | None, size: tuple[int, int]) -> A.Compose:
        height, width = size
        with warnings.catch_warnings():
            # albumentations only warns of a wrong argument and then goes on without it.
            warnings.simplefilter("error", UserWarning)
            shrunk = self._shrunk_size()
            steps = [
                *([] if shrunk is None else [self._resize(shrunk)]),
                *self._before_resizing(height, width),
                self._resize(FirstSize(height, width)),
                *self._more(first=False),
                *([self._resize(FirstSize(height, width))] if self._has_more else []),  # of what they cut
                *(_random_changes(self.data.augmentation) if self.train else []),
            ]
            return A.Compose(steps, additional_targets={TAUGHT: "mask"}, **({} if places is None else PLACES[places]()))

    def _before_resizing(self, height: int, width: int) -> list[A.BasicTransform | A.BaseCompose]:
        """Return all that is random and comes first: `data.cache` keeps whole images for it, or what it needs of
        them."""
        if not self.train:
            return []
        window = _random_window(self.data.window_size) if self.data.window_size else []
        return [*window, *self._more(first=True), *_random_crop(self.data.augmentation, height, width)]


def _writable(image: np.ndarray | Resized) -> np.ndarray | Resized:
    """Return a copy of what a cache holds, which a step of the user's may change where it is; all else as it is."""
    if isinstance(image, Resized):
        return image if image.pixels.flags.writeable else replace(image, pixels=image.pixels.copy())
    return image if image.flags.writeable else image.copy()


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


def _most_stretched(share: float) -> float:
    """Return how far from the image's own shape a part may be: stretched more it would reach out of the image."""
    return min(STRETCH, 1 / share)


class _CropOfOwnShape(A.RandomResizedCrop):
    """Cut out a share of the image's area, stretched by up to STRETCH from the image's own shape.

    The library's own ratio is that of a square: an image of 256 x 1600 has no such part of any size worth the name.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        draw = self.py_random
        share = draw.uniform(*self.scale)
        most = _most_stretched(share)
        stretch = math.exp(draw.uniform(-math.log(most), math.log(most)))
        # Rounded up: `smallest` is a bound.
        rows = min(math.ceil(height * math.sqrt(share / stretch)), height)
        columns = min(math.ceil(width * math.sqrt(share * stretch)), width)
        top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
        return {"crop_coords": (left, top, left + columns, top + rows)}

    def apply_to_keypoints(
        self, keypoints: np.ndarray, crop_coords: tuple[int, int, int, int], **params: Any
    ) -> np.ndarray:
        left, top, right, bottom = crop_coords
        scaled = super().apply_to_keypoints(keypoints, crop_coords, **params)
        return _from_middles(scaled, self.size[1] / (right - left), self.size[0] / (bottom - top))


class _Resize(A.Resize):
    """Make an image of one size, of which it may be `done`: then only its mask, boxes and points.

    Of several files each is made so by itself, as the cache keeps it: OpenCV's last bits hang on how many there are.
    """

    first_size: FirstSize
    done: np.ndarray | None = None
    each: int  # channels of a file

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"size": self.first_size.of(*params["shape"][:2])}

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        if self.done is not None:
            return self.done
        if self.each == img.shape[2]:
            return resize(img, params["size"], self.interpolation)
        parts = [np.ascontiguousarray(img[:, :, at : at + self.each]) for at in range(0, img.shape[2], self.each)]
        return np.concatenate([resize(part, params["size"], self.interpolation) for part in parts], axis=2)

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return resize(mask, params["size"], self.mask_interpolation)

    def apply_to_keypoints(self, keypoints: np.ndarray, **params: Any) -> np.ndarray:
        along, across = (to / of for to, of in zip(params["size"], params["shape"][:2], strict=True))
        return _from_middles(keypoints_scale(keypoints, across, along), across, along)


def _from_middles(scaled: np.ndarray, across: float, along: float) -> np.ndarray:
    """Return points that the library scaled from the middle of the first pixel as if scaled from its corner, as the
    image is."""
    scaled = scaled.astype(np.float32)
    scaled[:, 0] += (across - 1) / 2
    scaled[:, 1] += (along - 1) / 2
    return scaled


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

        def change(rows: np.ndarray) -> np.ndarray:
            # In rows: numpy is slow along an axis as short as that of channels, and with large arrays that are new.
            number = rows.shape[1] // len(low)
            changed = rows - np.tile(low, number)  # in float32 from here on
            changed *= np.float32(alpha)
            changed += np.tile(low + (high - low) * np.float32(beta), number)
            return changed

        if img.dtype == np.uint8 and len(low) <= OPENCV_CHANNELS:  # the same numbers, found instead of made anew
            table = change(np.repeat(np.arange(256, dtype=np.uint8)[:, None], len(low), axis=1))
            return cv2.LUT(img, table[None]).reshape(img.shape)
        return change(img.reshape(len(img), -1)).reshape(img.shape)


class _Affine(A.Affine):
    """Move an image four channels at a time, or one: OpenCV is slower with two or five, and from 5.0 on with three.

    What a channel becomes does not hang on how many there are.
    """

    def apply(self, img: np.ndarray, matrix: np.ndarray, output_shape: tuple[int, int], **params: Any) -> np.ndarray:
        channels = img.shape[2]
        if channels in AS_THEY_ARE:
            return super().apply(img, matrix, output_shape, **params)
        whole = np.empty((*output_shape, channels), img.dtype)
        for at in range(0, channels, AT_ONCE):
            number = min(AT_ONCE, channels - at)
            part = np.zeros((*img.shape[:2], 1 if number == 1 else AT_ONCE), img.dtype)
            _copy_channels(img, at, part, 0, number)
            moved = super().apply(part, matrix, output_shape, **params)
            _copy_channels(moved.reshape(*moved.shape[:2], -1), 0, whole, at, number)
        return whole


def _copy_channels(source: np.ndarray, first: int, target: np.ndarray, at: int, number: int) -> None:
    """Copy channels from `first` on to those from `at` on."""
    if max(source.shape[2], target.shape[2]) <= OPENCV_CHANNELS:  # several times faster than numpy's strided copy
        pairs = [place for step in range(number) for place in (first + step, at + step)]
        cv2.mixChannels([np.ascontiguousarray(source)], [target], pairs)
    else:
        target[:, :, at : at + number] = source[:, :, first : first + number]


def _fits_opencv(image: np.ndarray) -> bool:
    return image.ndim < 3 or image.shape[2] <= OPENCV_CHANNELS


class _HorizontalFlip(A.HorizontalFlip):
    """Swap left and right, also of masks of more classes than OpenCV flips."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return super().apply(img, **params) if _fits_opencv(img) else np.ascontiguousarray(img[:, ::-1])


class _VerticalFlip(A.VerticalFlip):
    """Swap top and bottom in the same way."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return super().apply(img, **params) if _fits_opencv(img) else np.ascontiguousarray(img[::-1])


def _random_changes(settings: Augmentation) -> list[A.BasicTransform]:
    """Light before what moves the image: black that comes in from outside is none of its values, and stays black."""
    steps: list[A.BasicTransform] = [
        _HorizontalFlip(p=settings.horizontal_flip),
        _VerticalFlip(p=settings.vertical_flip),
    ]
    if light := settings.brightness_contrast:
        steps.append(_Light(light.brightness, light.contrast, p=light.probability))
    if affine := settings.shift_scale_rotate:
        steps.append(
            _Affine(
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


def _box_settings() -> dict[str, Any]:
    how: dict[str, Any] = {"min_visibility": MIN_VISIBLE, "clip": True, "filter_invalid_bboxes": True}
    return {"bbox_params": A.BboxParams("pascal_voc", label_fields=["labels"], **how)}


def _point_settings() -> dict[str, Any]:
    # Which are inside is told at the end: between steps the library would drop those on the half of a border pixel.
    return {"keypoint_params": A.KeypointParams("xy", label_fields=["labels"], remove_invisible=False)}


def _points_inside(target: Target, height: int, width: int) -> Target:
    """Return a target whose points are counted from the corner again, without those outside of the image."""
    points = np.asarray(target["keypoints"], dtype=np.float32).reshape(-1, 2) + np.float32(0.5)
    inside = ((points >= 0) & (points <= np.array([width, height], dtype=np.float32))).all(axis=1)
    return {**target, "keypoints": points[inside], "labels": np.asarray(target["labels"])[inside]}


# What of a target moves with the image beside masks, as albumentations calls it, and what a pipeline is told of it.
PLACES: dict[str, Callable[[], dict[str, Any]]] = {"bboxes": _box_settings, "keypoints": _point_settings}

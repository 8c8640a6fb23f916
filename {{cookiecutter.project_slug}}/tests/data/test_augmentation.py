"""Random changes: independent of each other, the same for the same seed, and no image is destroyed by them."""

import itertools
import math
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from competition.config.data_settings import Augmentation, Data
from competition.config.loading import load_config, validate
from competition.data.augmentation import STRETCH, ImageAugmentation, Resized
from competition.support.errors import CompetitionError

EVERYTHING: dict[str, Any] = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "crop": {"probability": 0.5, "smallest": 0.5},
    "shift_scale_rotate": {"probability": 0.5, "shift": 0.1, "scale": 0.2, "rotate": 30},
    "brightness_contrast": {"probability": 0.5, "brightness": 0.2, "contrast": 0.2},
    "more": [
        {"RandomGamma": {"p": 0.5}},
        {"Rotate": {"p": 0.5, "limit": 20}},
        {"OneOf": {"p": 0.5, "transforms": [{"Morphological": {"p": 1}}, {"RandomToneCurve": {"p": 1}}]}},
        {"Transpose": {"p": 0.5}, "before_resize": True},
    ],
}
NUM_STEPS = 10  # of which a OneOf is two
NUM_DRAWS = 2000


def changed_by(changes: dict[str, Any], *, size: Any = (16, 16), channels: int = 1) -> ImageAugmentation:
    values: dict[str, Any] = {"channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}
    data = Data(image_size=size, augmentation=Augmentation.model_validate(changes), **values)
    return ImageAugmentation(data, train=True)


def drawn(augmentation: ImageAugmentation) -> dict[str, np.ndarray]:
    """Return by step what NUM_DRAWS seeds did: whether it came at all, and its numbers where it did, else NaN."""
    image = np.zeros((16, 16, 1), dtype=np.uint8)
    augmentation(image, {}, 0)
    (pipeline,) = augmentation._pipelines.values()
    pipeline.save_applied_params = True
    steps: dict[str, list[list[float]]] = {name: [] for name in names_of(pipeline)}
    for seed in range(NUM_DRAWS):
        _, rest = augmentation(image, {}, seed)
        applied = dict(rest["applied_transforms"])
        for name, rows in steps.items():
            rows.append([float(name in applied), *_numbers(applied.get(name, {}))])
    width = {name: max(map(len, rows)) for name, rows in steps.items()}
    filled = {n: [row + [np.nan] * (width[n] - len(row)) for row in rows] for n, rows in steps.items()}
    return {name: np.array(rows) for name, rows in filled.items()}


def names_of(steps: Any) -> list[str]:
    """Return the names of random steps; of one in a list that always comes, the list is."""
    names = []
    for step in steps:
        inside = [type(one).__name__ for one in step] if isinstance(step, A.BaseCompose) else [type(step).__name__]
        names += inside if step.p < 1 else []
    return names


def _numbers(params: dict[str, Any]) -> list[float]:
    """Return the drawn numbers of a step: a shift, an angle, a corner."""
    values = (np.ravel(value) for key, value in params.items() if key != "shape")
    return [float(one) for value in values if np.issubdtype(value.dtype, np.number) for one in value]


def test_every_pair_of_random_steps_is_independent() -> None:
    steps = drawn(changed_by(EVERYTHING))
    assert len(steps) == NUM_STEPS
    farthest = 4 / math.sqrt(NUM_DRAWS / 4)  # four standard deviations of a chance correlation of those both came in
    for (one, first), (other, second) in itertools.combinations(steps.items(), 2):
        if {one, other} == {"Morphological", "RandomToneCurve"}:
            assert not (first[:, 0] * second[:, 0]).any()
            continue
        for a, b in itertools.product(first.T, second.T):
            both = np.isfinite(a) & np.isfinite(b)
            if both.sum() > 100 and a[both].std() > 0 and b[both].std() > 0:
                assert abs(np.corrcoef(a[both], b[both])[0, 1]) < farthest, (one, other)


def test_each_step_comes_as_often_as_it_should_and_so_do_all_of_them_together() -> None:
    steps = drawn(changed_by({name: value for name, value in EVERYTHING.items() if name != "more"}))
    came = np.stack([rows[:, 0] for rows in steps.values()], axis=1)
    assert (abs(came.mean(axis=0) - 0.5) < 4 * 0.5 / math.sqrt(NUM_DRAWS)).all()
    untouched = 0.5**5
    assert abs((came.sum(axis=1) == 0).mean() - untouched) < 4 * math.sqrt(untouched / NUM_DRAWS)


def test_all_four_combinations_of_flips_come_in_the_image_itself() -> None:
    change = changed_by({"horizontal_flip": 0.5, "vertical_flip": 0.5})
    image = np.zeros((16, 16, 1), dtype=np.uint8)
    image[0, 0] = 255
    places = [divmod(int(change(image, {}, seed)[0].argmax()), 16) for seed in range(400)]
    counts = [places.count(corner) for corner in ((0, 0), (0, 15), (15, 0), (15, 15))]
    assert sum(counts) == 400
    assert min(counts) > 65  # of 100 each


def test_a_shipped_config_leaves_few_images_untouched(config_file: Path) -> None:
    settings = load_config([config_file]).data.augmentation
    expected = math.prod(1 - p for p in (settings.horizontal_flip, settings.vertical_flip))
    for part in (settings.crop, settings.shift_scale_rotate, settings.brightness_contrast):
        expected *= 1 if part is None else 1 - part.probability
    change = changed_by(settings.model_dump())
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 1), dtype=np.uint8)
    same = np.mean([np.allclose(change(image, {}, seed)[0], image, atol=1e-4) for seed in range(NUM_DRAWS)])
    assert abs(same - expected) < 4 * math.sqrt(expected / NUM_DRAWS)
    assert same < 0.12


# -- crops


@pytest.mark.parametrize("shape", [(256, 1600), (1600, 256), (256, 256), (37, 300), (3, 5)])
@pytest.mark.parametrize("smallest", [0.3, 0.7, 1.0])
def test_a_crop_is_a_part_of_any_place_and_size_whatever_the_shape(shape: tuple[int, int], smallest: float) -> None:
    """Each pixel says where it is: the part is read from the corners of what comes out."""
    height, width = shape
    change = changed_by({"crop": {"probability": 1.0, "smallest": smallest}}, size=(64, 64), channels=2)
    image = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).astype(np.float32)
    parts = []
    for seed in range(60):
        changed, _ = change(image, {}, seed)
        (pipeline,) = change._pipelines.values()
        crop = pipeline[0]
        assert isinstance(crop, A.RandomResizedCrop)
        left, top, right, bottom = crop.params["crop_coords"]
        seen = changed.reshape(-1, 2)
        assert (seen.min(0) >= (top, left)).all()
        assert (seen.max(0) <= (bottom - 1, right - 1)).all()
        parts.append((top, left, bottom - top, right - left))
    tops, lefts, heights, widths = np.array(parts).T
    shares = heights * widths / (height * width)
    assert (shares >= smallest).all()
    assert ((heights <= height) & (widths <= width)).all()
    if smallest == 1:
        assert (shares == 1).all()
    elif min(shape) > 30:
        assert len(set(parts)) > 50
        assert shares.min() < smallest + 0.1
        assert shares.max() > 0.9
        stretch = (widths / width) / (heights / height)
        assert (np.abs(np.log(stretch)) <= math.log(STRETCH) + 2 / min(shape)).all()
        free = (height - heights, width - widths)
        for place, room in zip((tops, lefts), free, strict=True):
            assert 0.3 < np.mean(place[room > 3] / room[room > 3]) < 0.7


# -- light


def files_of_any_kind() -> dict[str, np.ndarray]:
    """Return images as they are read: 8 bit, 12 bit in 16, floats far from 0 and 1, z-scores, bands of other units."""
    shades = np.random.default_rng(0).normal(size=(40, 50, 3)).astype(np.float32)
    unit = (shades - shades.min()) / (shades.max() - shades.min())
    hot = unit * np.float32(4095 / 65535)
    hot[3, 4] = 1
    return {
        "8 bit": (unit * 255).astype(np.uint8),
        "dark 8 bit": (unit * 20).astype(np.uint8),
        "12 bit": unit * np.float32(4095 / 65535),
        "a hot pixel": hot,
        "200 to 300": unit * 100 + 200,
        "z-scores": shades,
        "bands": unit * np.array([1e-3, 1, 3000], dtype=np.float32),
        "constant": np.full((40, 50, 3), 7, dtype=np.float32),
    }


@pytest.mark.parametrize("kind", files_of_any_kind())
def test_light_shifts_and_stretches_an_image_within_its_own_range_and_destroys_none(kind: str) -> None:
    """Per channel the values go along a line of a slope near 1, and are moved by a share of what they span."""
    image = files_of_any_kind()[kind]
    light = {"brightness_contrast": {"probability": 1.0, "brightness": 0.2, "contrast": 0.2}}
    change = changed_by(light, size=(40, 50), channels=3)
    plain = changed_by({}, size=(40, 50), channels=3)(image, {}, 0)[0].astype(np.float64)
    moved = []
    for seed in range(40):
        changed = change(image, {}, seed)[0].astype(np.float64)
        for channel in range(3):
            before, after = plain[:, :, channel].ravel(), changed[:, :, channel].ravel()
            span = np.ptp(np.percentile(before, (1, 99)))
            if span == 0:
                np.testing.assert_allclose(after, before, rtol=1e-5)
                continue
            slope, offset = np.polyfit(before, after, 1)
            assert 0.79 < slope < 1.21
            np.testing.assert_allclose(after, slope * before + offset, atol=1e-3 * span)
            shift = (np.percentile(after, 1) - np.percentile(before, 1)) / span
            assert abs(shift) < 0.21
            moved.append((slope, shift))
    if moved:
        assert np.ptp(moved, axis=0).min() > 0.25


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [2, 3, 5, 130])
def test_a_channel_is_moved_as_it_is_by_itself_however_many_there_are(channels: int, kind: type) -> None:
    moves = {"shift_scale_rotate": {"probability": 1.0, "shift": 0.1, "scale": 0.2, "rotate": 40}}
    image = np.random.default_rng(0).integers(0, 255, (40, 50, channels)).astype(kind)
    moved = changed_by(moves, size=(40, 50), channels=channels)(image, {}, 3)[0]
    assert (moved == 0).any()  # of what comes in from outside
    alone = changed_by(moves, size=(40, 50))
    each = [alone(np.ascontiguousarray(image[:, :, [one]]), {}, 3)[0] for one in range(channels)]
    # To OpenCV's last bits: of floats they may hang on how many channels there are.
    np.testing.assert_allclose(moved, np.concatenate(each, axis=2), atol=0.01, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 5, 130])
def test_light_of_8_bit_is_that_of_the_same_numbers_as_floats(channels: int) -> None:
    light = {"brightness_contrast": {"probability": 1.0, "brightness": 0.2, "contrast": 0.2}}
    change, image = changed_by(light, size=(24, 24), channels=channels), picture(channels=channels)
    for seed in range(3):
        np.testing.assert_array_equal(change(image, {}, seed)[0], change(image.astype(np.float32), {}, seed)[0])


# -- made smaller before the crop


def cropped_sides(augmentation: ImageAugmentation, height: int, width: int, seed: int) -> np.ndarray:
    """Return height and width of the part that is cut out of an image."""
    for pipeline in augmentation._pipelines.values():
        pipeline.save_applied_params = True
    _, rest = augmentation(np.zeros((height, width, 1), np.uint8), {}, seed)
    left, top, right, bottom = dict(rest["applied_transforms"])["_CropOfOwnShape"]["crop_coords"]
    return np.array([bottom - top, right - left])


def test_no_part_of_an_image_that_was_shrunk_first_is_enlarged_more_than_of_the_whole_one() -> None:
    rng, shrunk = np.random.default_rng(0), 0
    for _ in range(40):
        size, (height, width) = tuple(rng.integers(16, 50, 2).tolist()), rng.integers(16, 200, 2).tolist()
        crop = {"probability": 1.0, "smallest": float(rng.uniform(0.4, 1))}
        whole, first = (changed_by({"crop": crop | {"shrink_first": on}}, size=size) for on in (False, True))
        assert first.first_size is not None
        for one in (whole, first):  # builds its pipeline
            one(np.zeros((height, width, 1), np.uint8), {}, 0)
        small = first.first_size.of(height, width)
        for seed in range(40):
            of_whole, of_small = (cropped_sides(one, height, width, seed) for one in (whole, first))
            assert (of_small >= np.minimum(of_whole, size)).all()
            shrunk += (of_small < of_whole).any()
            if seed < 2:  # from there on it is cut out as always
                np.testing.assert_array_equal(of_small, cropped_sides(whole, *small, seed))
    assert shrunk > 400


@pytest.mark.parametrize("smallest", [0.2, 0.6, 0.9, 1.0])
def test_an_image_is_shrunk_no_less_than_its_smallest_part_allows(smallest: float) -> None:
    least = math.sqrt(smallest / min(STRETCH, 1 / smallest))  # of a side
    crop = {"crop": {"smallest": smallest, "shrink_first": True}}
    size = changed_by(crop, size=[[0, [40, 20]], [2, [30, 60]]]).first_size
    assert size is not None
    assert not size.enlarges
    assert all(
        (side - 1) * least < needed <= side * least + 1e-9 for side, needed in zip(size[:2], (40, 60), strict=True)
    )


def test_masks_and_boxes_of_images_that_are_shrunk_first_lie_where_these_do() -> None:
    change = changed_by({"crop": {"probability": 1.0, "smallest": 0.5, "shrink_first": True}}, size=(40, 56))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        (height, width), (top, left) = rng.integers(120, 300, 2).tolist(), rng.integers(40, 60, 2).tolist()
        mask = np.zeros((height, width, 1), np.uint8)
        mask[top : top + 50, left : left + 40] = 1
        image, box = mask.astype(np.float32), np.array([[left, top, left + 40, top + 50]], np.float32)
        for target in ({"mask": mask}, {"bboxes": box, "labels": np.array([7])}):
            seen, moved = change(image, target, seed)
            found = moved["bboxes"][0] if "bboxes" in moved else corners(moved["mask"][:, :, 0])
            np.testing.assert_allclose(found, corners(seen[:, :, 0] > 0.5), atol=1.5)


def corners(inside: np.ndarray) -> np.ndarray:
    """Return left, top, right and bottom of what is set in (height, width)."""
    places = np.argwhere(inside)[:, ::-1]
    return np.concatenate([places.min(axis=0), places.max(axis=0) + 1])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.window.size=64"], "data.window is cut from images at full resolution"),
        (["data.augmentation.more=[{Blur: {}, before_resize: true}]"], "steps of more that before_resize: true"),
    ],
)
def test_what_sees_images_whole_is_refused_beside_shrinking_first(
    config_file: Path, words: list[str], expected: str
) -> None:
    with pytest.raises(CompetitionError, match=expected):
        load_config([config_file], ["data.augmentation.crop.shrink_first=true", *words])


# -- named steps


def picture(size: int = 24, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (size, size, channels), dtype=np.uint8)


NESTED = {
    "more": [
        {"SomeOf": {"n": 2, "transforms": ["HorizontalFlip", {"GaussNoise": {"p": 1}}, {"ColorJitter": {"p": 1}}]}},
        {"Sequential": {"p": 0.5, "transforms": [{"CoarseDropout": {"p": 0.5}}, {"OneOf": {"transforms": ["Blur"]}}]}},
        {"RandAugment": {"num_ops": 2}},
        {"TrivialAugmentWide": {"p": 0.5}},
    ]
}


def test_what_named_steps_draw_hangs_on_the_seed_alone() -> None:
    change, other = changed_by(NESTED, channels=3), changed_by(NESTED, channels=3)
    image = picture()
    first = [change(image, {}, seed)[0] for seed in range(12)]
    torch.manual_seed(1)
    np.random.seed(1)
    second = [other(image, {}, seed)[0] for seed in reversed(range(12))][::-1]
    assert all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))
    assert len({one.tobytes() for one in first}) > 10


def test_a_policy_moves_no_other_generator() -> None:
    change = changed_by(NESTED, channels=3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    change(picture(), {}, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_named_step_is_the_librarys(tmp_path: Path) -> None:
    change = changed_by({"more": [{"InvertImg": {"p": 1}}]}, size=(24, 24), channels=3)
    np.testing.assert_array_equal(change(picture(), {}, 0)[0], 255 - picture())


def test_a_step_of_the_users_own_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import albumentations as A\n"
        "class Darker(A.ImageOnlyTransform):\n"
        "    def __init__(self, by, p=0.5):\n"
        "        super().__init__(p=p)\n"
        "        self.by = by\n"
        "    def apply(self, img, **params):\n"
        "        return img // self.by\n"
    )
    change = changed_by({"more": [{f"{tmp_path}/mine.py:Darker": {"by": 2, "p": 1}}]}, size=(24, 24), channels=3)
    np.testing.assert_array_equal(change(picture(), {}, 0)[0], picture() // 2)
    with pytest.raises(CompetitionError, match=r"more.0: .*mine.py:Darker takes no \"bz\"; did you mean by\?"):
        changed_by({"more": [{f"{tmp_path}/mine.py:Darker": {"bz": 2}}]})
    with pytest.raises(CompetitionError, match=r"mine.py: defines no class Lighter, a transform"):
        changed_by({"more": [f"{tmp_path}/mine.py:Lighter"]})


def test_a_step_of_the_users_own_may_change_an_image_of_the_cache_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import albumentations as A\n"
        "class Dot(A.ImageOnlyTransform):\n"
        "    def apply(self, img, **params):\n"
        "        img[0, 0] = 7\n"
        "        return img\n"
    )
    change = changed_by({"more": [{f"{tmp_path}/mine.py:Dot": {"p": 1}}]}, size=(24, 24), channels=3)
    image = picture()
    image.flags.writeable = False
    for given in (image, Resized(image, 30, 40)):
        assert (change(given, {}, 0)[0][0, 0] == 7).all()
        np.testing.assert_array_equal(image, picture())


REFUSED: dict[str, tuple[Any, str]] = {
    "a misspelt name": (
        "GausianBlur",
        'more.0: "GausianBlur" is no transform of albumentations; did you mean GaussianBlur?',
    ),
    "a misspelt argument": ({"GaussianBlur": {"blur_limits": 3}}, 'takes no "blur_limits"; did you mean blur_limit?'),
    "a wrong value": ({"GaussianBlur": {"p": 2}}, "more.0: GaussianBlur: "),
    "what all images get": ({"Normalize": {}}, "more.0: Normalize makes images what networks see"),
    "one deep inside": (
        {"OneOf": {"transforms": ["Blur", {"Sequential": {"transforms": ["Blurr"]}}]}},
        'more.0.OneOf.transforms.1.Sequential.transforms.0: "Blurr" is no transform of albumentations; did you mean',
    ),
    "a misspelt argument of a policy": (
        {"RandAugment": {"num_op": 2}},
        'RandAugment takes no "num_op"; did you mean num_ops?',
    ),
    "more than there are": ({"SomeOf": {"n": 3, "transforms": ["Blur"]}}, "more.0: SomeOf: `n` is greater"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_step_is_is_told_at_once_in_one_line(case: str) -> None:
    step, expected = REFUSED[case]
    with pytest.raises(CompetitionError) as refused:
        changed_by({"more": [step]})
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "step", [3, {}, {"Blur": {}, "MotionBlur": {}}, {"OneOf": {}}, {"OneOf": {"transforms": [7]}}, {"Blur": 3}]
)
def test_what_is_no_list_of_steps_is_told_with_its_key(step: Any, config_file: Path) -> None:
    values = load_config([config_file]).model_dump(mode="json")
    values["data"]["augmentation"]["more"] = ["Blur", step]
    with pytest.raises(CompetitionError, match=r"^t: data\.augmentation\.more\.1: found .*"):
        validate(values, {}, "t")


def test_what_a_step_cannot_do_with_an_image_is_one_line() -> None:
    too_large = changed_by({"more": [{"CenterCrop": {"height": 99, "width": 99, "p": 1}}]})
    with pytest.raises(CompetitionError, match=r"data\.augmentation\.more: \w+: "):
        too_large(picture(channels=1), {}, 0)
    bands = changed_by({"more": [{"GaussNoise": {"p": 1}}]})
    with pytest.raises(CompetitionError, match="its steps cut floats off at 0 and 1, and an image has 0 to 254"):
        bands(picture(channels=1).astype(np.float32), {}, 0)
    policy = changed_by({"more": [{"RandAugment": {}}]})
    with pytest.raises(CompetitionError, match="RandAugment is for classes: masks do not follow it"):
        policy(picture(channels=1), {"mask": np.zeros((24, 24), np.uint8)}, 0)
    boxes = {"bboxes": np.array([[1.0, 1, 9, 9]]), "labels": np.array([0])}
    with pytest.raises(CompetitionError, match="RandAugment is for classes: boxes do not follow it"):
        policy(picture(channels=1), boxes, 0)


# -- points


MOVES: dict[str, dict[str, Any]] = {
    "resized": {},
    "flipped": {"horizontal_flip": 1.0, "vertical_flip": 1.0},
    "cropped": {"crop": {"probability": 1.0, "smallest": 0.4}},
    "shrunk first": {"crop": {"probability": 1.0, "smallest": 0.8, "shrink_first": True}},
    "turned": {"shift_scale_rotate": {"probability": 1.0, "shift": 0.1, "scale": 0.2, "rotate": 40}},
    "by named steps": {"more": [{"RandomRotate90": {"p": 1.0}}, {"Transpose": {"p": 0.5}}]},
}


@pytest.mark.parametrize("settings", MOVES.values(), ids=MOVES)
def test_points_lie_where_what_they_are_of_is_seen(settings: dict[str, Any]) -> None:
    """Each point is the middle of a bump in a channel of its own, which the image's own pixels tell."""
    change, number = changed_by(settings, size=(64, 96), channels=3), 0
    rows, columns = np.mgrid[:64, :96] + 0.5
    for seed in range(12):
        height, width = np.random.default_rng(seed).integers(60, 120, 2)
        points = np.random.default_rng(seed).uniform(8, [width - 8, height - 8], (3, 2)).astype(np.float32)
        y, x = np.mgrid[:height, :width][:, :, :, None] + 0.5
        image = np.exp(-((x - points[:, 0]) ** 2 + (y - points[:, 1]) ** 2) / 8).astype(np.float32)
        moved, target = change(image, {"keypoints": points, "labels": np.arange(3)}, seed)
        for (left, top), label in zip(target["keypoints"], target["labels"], strict=True):
            if 12 < left < 84 and 12 < top < 52:  # else its bump is cut off
                bump = moved[:, :, label].astype(np.float64)
                middle = (bump * columns).sum() / bump.sum(), (bump * rows).sum() / bump.sum()
                assert np.abs(np.array(middle) - [left, top]).max() < 0.4
                number += 1
    assert number > 12


def test_a_point_on_the_border_stays_and_one_outside_goes() -> None:
    points = np.array([[0, 0], [20, 10], [20.5, 5], [0.2, 15.9]], dtype=np.float32)
    target = {"keypoints": points, "labels": np.arange(4)}
    _, moved = changed_by({"horizontal_flip": 1.0}, size=(16, 20), channels=1)(
        np.zeros((16, 20, 1), np.uint8), target, 0
    )
    np.testing.assert_allclose(moved["keypoints"], [[20, 0], [0, 10], [19.8, 15.9]], atol=1e-5)
    assert moved["labels"].tolist() == [0, 1, 3]
    nothing = {"keypoints": points[:0], "labels": np.zeros(0, dtype=np.int64)}
    _, moved = changed_by({"horizontal_flip": 1.0}, size=(16, 20), channels=1)(
        np.zeros((16, 20, 1), np.uint8), nothing, 0
    )
    assert moved["keypoints"].shape == (0, 2)
    assert len(moved["labels"]) == 0

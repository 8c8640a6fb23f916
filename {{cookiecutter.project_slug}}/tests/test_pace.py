"""Hours of a hidden test set from seconds an image."""

from competition.pace import Pace


def test_without_workers_images_are_read_and_then_looked_at() -> None:
    pace = {"read": 0.06, "views": {"plain": 0.04, "hflip": 0.02}, "networks": 2}
    assert Pace(**pace, workers=0, devices=1).seconds == 0.06 + 0.12
    assert Pace(**pace, workers=1, devices=1).seconds == 0.12
    assert Pace(**pace, workers=0, devices=2).seconds == 0.06  # threads of devices look while the next are read

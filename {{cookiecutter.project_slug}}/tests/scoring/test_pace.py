"""Hours of a hidden test set from seconds an image."""

from competition.scoring.timed_trial import Pace


def test_without_workers_images_are_read_and_then_looked_at() -> None:
    pace = {"read": 0.06, "views": {"plain": 0.04, "hflip": 0.02}, "networks": 2}
    assert Pace(**pace, workers=0, devices=1).seconds == 0.06 + 0.12
    assert Pace(**pace, workers=1, devices=1).seconds == 0.12
    assert Pace(**pace, workers=0, devices=2).seconds == 0.06  # threads of devices look while the next are read


def test_a_view_less_saves_nothing_where_networks_wait_for_images() -> None:
    pace = Pace(read=4.0, views={"plain": 0.4, "hflip": 0.4}, networks=2, workers=2, devices=1)
    assert pace.is_held_up_by_reading
    assert pace.seconds == pace.without_view("hflip").seconds == pace.with_a_network_less().seconds == 2
    assert pace.with_more_workers().seconds == 1.6
    quicker = Pace(read=1.0, views=pace.views, networks=2, workers=1, devices=1)
    assert not quicker.is_held_up_by_reading
    assert quicker.seconds - quicker.without_view("hflip").seconds == 1.6 - 1.0  # of .8 s; then images are waited for

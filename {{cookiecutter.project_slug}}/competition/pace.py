"""How long images take, from what was measured of each step: the arithmetic of `--estimate`. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pace:
    """Seconds an image: `read` by one process, `views` by one network on one device."""

    read: float
    views: Mapping[str, float]
    networks: int
    workers: int
    devices: int

    @property
    def look(self) -> float:
        """Return the seconds an image that all networks take, in all views."""
        return self.networks * sum(self.views.values()) / self.devices

    @property
    def wait(self) -> float:
        """Return the seconds an image until the next one is read."""
        return self.read / max(self.workers, 1)

    @property
    def has_both_at_once(self) -> bool:
        """Return whether the next images are read while networks look at these.

        Workers do that and, where it hands images to threads of several devices, the main process.
        """
        return self.workers > 0 or self.devices > 1

    @property
    def seconds(self) -> float:
        """Return the seconds an image that reading and looking take together."""
        return max(self.wait, self.look) if self.has_both_at_once else self.wait + self.look

    @property
    def is_held_up_by_reading(self) -> bool:
        """Return whether quicker networks would only wait for images."""
        return self.has_both_at_once and self.wait >= self.look

    def without_view(self, name: str) -> "Pace":
        """Return the pace without a view."""
        return replace(self, views={view: seconds for view, seconds in self.views.items() if view != name})

    def with_a_network_less(self) -> "Pace":
        """Return the pace without one of the trainings."""
        return replace(self, networks=self.networks - 1)

    def with_more_workers(self) -> "Pace":
        """Return the pace with twice as many workers, at least the two that any machine has cores for."""
        return replace(self, workers=max(2 * self.workers, 2))

"""How long images take, from what was measured of each step: the arithmetic of `--estimate`. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass


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
    def seconds(self) -> float:
        """Return the seconds an image that reading and looking take together."""
        read = self.read / max(self.workers, 1)
        # Workers read the next images while networks look at these; so does the main process, where it hands images to
        # threads of several devices. Else one waits for the other.
        has_both_at_once = self.workers > 0 or self.devices > 1
        return max(read, self.look) if has_both_at_once else read + self.look

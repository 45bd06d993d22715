"""The cloud's clock, which may run faster than the machine's.

Alarm periods and cooldowns are minutes, and a test has seconds. So the services' clock has a rate: at 20, a period of
60 s lasts three. The daemon is told nothing of it: it puts the definitions it always puts. Lifecycle hooks run at the
machine's rate, because the daemon's heartbeats do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    rate: float = 1.0

    def now(self) -> float:
        """Seconds since 1970, as data points and deadlines have them; the machine's."""
        return time.time()

    def lasts(self, seconds: float) -> float:
        """How long a stretch of the cloud's time takes here."""
        return seconds / self.rate

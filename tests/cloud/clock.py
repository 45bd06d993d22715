"""The cloud's clock, which may run faster than the machine's.

Alarm periods and cooldowns last minutes, which is too long for a test. So the services' clock has a rate: at 20, a
period of 60 s lasts three. The nodes do not know the rate and put their usual definitions. Lifecycle hooks run at the
machine's rate, because the nodes' heartbeats do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    rate: float = 1.0

    def now(self) -> float:
        """The machine's time in seconds since 1970, as in data points and deadlines."""
        return time.time()

    def lasts(self, seconds: float) -> float:
        """The seconds on the machine's clock that `seconds` of the cloud's time take."""
        return seconds / self.rate

"""When what failed for the environment's sake is tried again: 1 s, doubling up to a minute. In memory only."""

import threading

_FIRST, _LONGEST = 1.0, 60.0


class Backoff:
    """Delays by key, on a monotonic clock in seconds. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delays: dict[int, float] = {}
        self._due_at: dict[int, float] = {}

    def failed(self, key: int, now: float) -> float:
        """Note a failure; the seconds until the next try."""
        with self._lock:
            delay = min(self._delays.get(key, _FIRST / 2) * 2, _LONGEST)
            self._delays[key] = delay
            self._due_at[key] = now + delay
            return delay

    def postpone(self, key: int, now: float, seconds: float) -> None:
        """It did not fail, and it is not its turn yet."""
        with self._lock:
            self._due_at[key] = now + seconds

    def forget(self, key: int) -> None:
        """It went well."""
        with self._lock:
            self._delays.pop(key, None)
            self._due_at.pop(key, None)

    def due(self, now: float) -> list[int]:
        """The keys whose time has come, each told once."""
        with self._lock:
            keys = [key for key, at in self._due_at.items() if at <= now]
            for key in keys:
                del self._due_at[key]
            return keys

    def next_in(self, now: float) -> float:
        """Seconds until the next one is due; infinite where none is."""
        with self._lock:
            return min((at - now for at in self._due_at.values()), default=float("inf"))

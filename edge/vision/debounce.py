"""What is so for a while, and not just for a frame."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Settled(Generic[T]):
    """A value that changes when another one has been seen, and nothing else, for some time. For one thread."""

    def __init__(self, value: T, since_ns: int) -> None:
        self.value = value
        self.since_ns = since_ns
        """When it began, on the clock of `see`."""
        self._other: tuple[T, int] | None = None

    def see(self, monotonic_ns: int, seen: T | None, after_s: float) -> bool:
        """Whether the value changes with this. None: it can't be told, which leaves everything as it is."""
        if seen is None:
            return False
        if seen == self.value:
            self._other = None
            return False
        if self._other is None or self._other[0] != seen:
            self._other = seen, monotonic_ns
        if monotonic_ns - self._other[1] < after_s * 1e9:
            return False
        (self.value, self.since_ns), self._other = self._other, None
        return True

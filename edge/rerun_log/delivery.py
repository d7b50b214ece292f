"""What of a numbered log one receiver has, has on its way, and still lacks. Numbers only: no clock, no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of whole numbers, kept as ranges: 0 to 999 without 500 are two of them, however large they are."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges in order, (first, one past the last); they neither overlap nor touch."""
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __len__(self) -> int:
        """How many numbers there are."""
        return sum(self._ends) - sum(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def add(self, start: int, end: int) -> None:
        """Put in the numbers from `start` up to, not including, `end`."""
        if start >= end:
            return
        low, high = bisect_left(self._ends, start), bisect_right(self._starts, end)  # those it overlaps or touches
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high], self._ends[low:high] = [start], [end]

    def remove(self, start: int, end: int) -> None:
        """Take out the numbers from `start` up to, not including, `end`, as far as they are there."""
        if start >= end:
            return
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)  # those it overlaps
        if low >= high:
            return
        left = (self._starts[low], start)
        right = (end, self._ends[high - 1])
        rest = [(first, last) for first, last in (left, right) if first < last]
        self._starts[low:high], self._ends[low:high] = [first for first, _ in rest], [last for _, last in rest]

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of the numbers from `start` up to, not including, `end`."""
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)
        found = zip(self._starts[low:high], self._ends[low:high], strict=True)
        return [(max(first, start), min(last, end)) for first, last in found]

    def first_from(self, number: int) -> int | None:
        """The least that is not below `number`."""
        at = bisect_right(self._ends, number)
        return None if at == len(self._starts) else max(number, self._starts[at])

    def last_before(self, number: int) -> int | None:
        """The greatest that is below `number`."""
        at = bisect_left(self._starts, number) - 1
        return None if at < 0 else min(number, self._ends[at]) - 1


_LEAST = -(1 << 62)


class Delivery:
    """One receiver's share of a log whose entries are numbered without a gap.

    What is wanted is what it has not acknowledged. Of that the newest goes first, from where `connected` says on; what
    is older, the gap, goes when there is time. A receiver that vanishes lacks all that it has not acknowledged, also
    what was on its way: that may come twice, and never not at all.
    """

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self.end = begin
        """The number that comes next in the log."""
        self._live = begin
        self._wanted = Ranges()
        self._on_its_way = Ranges()
        self._again = Ranges()
        self._holes = Ranges()  # what it will never get

    @property
    def wanted(self) -> Ranges:
        """What is not acknowledged, on its way or not."""
        return self._wanted

    def appended(self, number: int) -> None:
        self._wanted.add(number, number + 1)
        self.end = number + 1

    def connected(self, live_from: int) -> None:
        """A receiver is there, or another one: nothing is on its way any more, and what is new begins so late."""
        self._on_its_way = Ranges()
        self._live = live_from

    def skip_to(self, live_from: int) -> None:
        """It takes less than comes: what it has not been sent before `live_from` becomes part of the gap."""
        self._live = max(self._live, live_from)

    def forgotten(self, since: int) -> None:
        """The receiver has lost what it had. As far as that came after `since` it is wanted again."""
        since = max(since, self._begin)
        had = Ranges([(since, self.end)])
        for start, end in self._wanted:
            had.remove(start, end)
        for start, end in had:
            self._wanted.add(start, end)
            self._again.add(start, end)
        self._holes.add(self._begin, since)
        for start, end in self._wanted:
            self._holes.remove(start, end)

    def next_live(self) -> int | None:
        """The next number of what is new; to be called `sent`, or `lost`."""
        return self._next_from(self._live, self.end)

    def next_of_gap(self) -> int | None:
        """The next number of what it should have been sent before; what earlier runs owe comes last."""
        found = self._next_from(0, self._live)
        return self._next_from(_LEAST, 0) if found is None else found

    def owes(self, numbers: Ranges) -> None:
        """What earlier runs did not deliver. Their numbers are negative."""
        for start, end in numbers:
            self._wanted.add(start, end)

    @property
    def unsent_live(self) -> int:
        """How many of the new ones it has not been sent."""
        return self.end - self._live

    def sent(self, number: int) -> None:
        self._on_its_way.add(number, number + 1)
        if number >= self._live:
            self._live = number + 1

    def acknowledged(self, number: int) -> bool:
        """It has this one. Whether for the first time."""
        first = self.is_undelivered(number)
        for numbers in (self._wanted, self._on_its_way, self._again):
            numbers.remove(number, number + 1)
        return first

    def is_undelivered(self, number: int) -> bool:
        """Whether it is wanted, and was never there."""
        return number in self._wanted and number not in self._again

    def lost(self, number: int) -> bool:
        """The log has it no longer. Whether it was still to be delivered, and now never is."""
        if number not in self._wanted or number in self._on_its_way:
            return False
        return self.given_up(number)

    def given_up(self, number: int) -> bool:
        """It will not get this one, though it is wanted. Whether it never did."""
        self._holes.add(number, number + 1)
        never = self.acknowledged(number)
        self._forget_old_holes()
        return never

    def all_given_up(self, numbers: Ranges) -> Ranges:
        """It will not get those of `numbers` that are wanted. Which of them it never had."""
        wanted = Ranges(part for start, end in numbers for part in self._wanted.within(start, end))
        never = Ranges(wanted)
        for start, end in self._again:
            never.remove(start, end)
        for start, end in wanted:
            self._holes.add(start, end)
            for each in (self._wanted, self._on_its_way, self._again):
                each.remove(start, end)
        self._forget_old_holes()
        return never

    def can_be_decoded(self, number: int, since: int) -> bool:
        """Whether it has or gets all that `number` continues, which begins with `since`: see Entry."""
        if since == number:
            return True
        hole = self._holes.first_from(since)
        return since >= self._begin and (hole is None or hole >= number)

    def _forget_old_holes(self) -> None:
        """Of those before all that is wanted only the last one matters."""
        oldest = self._wanted.first_from(0)
        if oldest is None:
            oldest = self.end
        if (last := self._holes.last_before(oldest)) is not None:
            self._holes.remove(0, last)

    def _next_from(self, number: int, end: int) -> int | None:
        """The least number from `number` up to `end` that is wanted and not on its way."""
        while True:
            found = self._wanted.first_from(number)
            if found is None or found >= end:
                return None
            if found not in self._on_its_way:
                return found
            number = self._after_on_its_way(found)

    def _after_on_its_way(self, number: int) -> int:
        return next(end for start, end in self._on_its_way if start <= number < end)

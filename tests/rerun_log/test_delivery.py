"""What a receiver has and lacks, against plain sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edge.rerun_log.delivery import Delivery, Ranges

NUMBERS = st.integers(-20, 40)
MOST = 41


@given(changes=st.lists(st.tuples(st.booleans(), NUMBERS, NUMBERS), max_size=25))
@settings(max_examples=150)
def test_ranges_are_a_set(changes: list[tuple[bool, int, int]]) -> None:
    ranges, plain = Ranges(), set[int]()
    for adds, start, end in changes:
        if adds:
            ranges.add(start, end)
            plain |= {*range(start, end)}
        else:
            ranges.remove(start, end)
            plain -= {*range(start, end)}
        assert [number for first, last in ranges for number in range(first, last)] == sorted(plain)
        assert (len(ranges), bool(ranges)) == (len(plain), bool(plain))
        assert all(first < last for first, last in ranges)
        assert all(before[1] < after[0] for before, after in pairwise(ranges)), "they neither overlap nor touch"
    for number in range(-21, MOST + 1):
        assert (number in ranges) is (number in plain)
        assert ranges.first_from(number) == min((each for each in plain if each >= number), default=None)
        found = [each for first, last in ranges.within(number, number + 9) for each in range(first, last)]
        assert found == sorted(plain & {*range(number, number + 9)})
    assert list(Ranges(ranges)) == list(ranges)


def test_a_set_of_many_numbers_is_as_small_as_its_ranges() -> None:
    ranges = Ranges([(0, 10**15)])
    ranges.remove(500, 501)
    assert len(ranges) == 10**15 - 1
    assert [each for each in ranges] == [(0, 500), (501, 10**15)]  # noqa: C416 - list() would make room for len()


class Comparison(RuleBasedStateMachine):
    """A delivery does what sets of numbers do."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = self.end = self.live = 3
        self.delivery = Delivery(self.begin)
        self.wanted: set[int] = set()
        self.on_its_way: set[int] = set()
        self.acknowledged: set[int] = set()
        self.lost: set[int] = set()
        self.again: set[int] = set()

    def waits(self, start: int, end: int) -> int | None:
        return min((each for each in self.wanted - self.on_its_way if start <= each < end), default=None)

    @rule(amount=st.integers(1, 5))
    def append(self, amount: int) -> None:
        for _ in range(amount):
            self.delivery.appended(self.end)
            self.wanted.add(self.end)
            self.end += 1

    @rule(back=st.integers(0, 8))
    def connect(self, back: int) -> None:
        self.live = max(0, self.end - back)
        self.on_its_way.clear()
        self.delivery.connected(self.live)

    @rule(amount=st.integers(1, 5))
    def send_live(self, amount: int) -> None:
        for _ in range(amount):
            if (number := self.delivery.next_live()) is not None:
                self.send(number)
                self.live = number + 1

    @rule(amount=st.integers(1, 5))
    def send_of_gap(self, amount: int) -> None:
        for _ in range(amount):
            if (number := self.delivery.next_of_gap()) is not None:
                self.send(number)

    def send(self, number: int) -> None:
        assert number in self.wanted
        assert number not in self.on_its_way
        self.delivery.sent(number)
        self.on_its_way.add(number)

    @precondition(lambda self: self.on_its_way)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        for number in data.draw(st.lists(st.sampled_from(sorted(self.on_its_way)), min_size=1, unique=True)):
            assert self.delivery.acknowledged(number) is (number not in self.again)
            self.again.discard(number)
            self.wanted.remove(number)
            self.on_its_way.remove(number)
            self.acknowledged.add(number)

    @precondition(lambda self: self.end > self.begin)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Of what is on its way it is not known yet whether it is lost."""
        number = data.draw(st.integers(0, self.end - 1))
        expected = number in self.wanted and number not in self.on_its_way
        assert self.delivery.lost(number) is (expected and number not in self.again)
        if expected:
            self.again.discard(number)
            self.wanted.remove(number)
            self.lost.add(number)

    @rule(ranges=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=3))
    def withhold(self, ranges: list[tuple[int, int]]) -> None:
        """On its way or not."""
        numbers = Ranges(ranges)
        meant = {number for number in self.wanted if number in numbers}
        never = self.delivery.all_given_up(numbers)
        assert {number for start, end in never for number in range(start, end)} == meant - self.again
        self.again -= meant
        self.wanted -= meant
        self.on_its_way -= meant
        self.lost |= meant

    @rule(since=st.integers(0, 30))
    def forget(self, since: int) -> None:
        since = min(since, self.end)
        self.delivery.forgotten(since)
        again = {*range(max(since, self.begin), self.end)} - self.wanted
        self.acknowledged -= again
        self.lost -= again
        self.wanted |= again
        self.again |= again

    @rule(back=st.integers(0, 8))
    def skip(self, back: int) -> None:
        self.delivery.skip_to(self.end - back)
        self.live = max(self.live, self.end - back)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert {number for start, end in self.delivery.wanted for number in range(start, end)} == self.wanted
        assert self.wanted | self.acknowledged | self.lost == {*range(self.begin, self.end)}
        assert self.delivery.end == self.end

    @invariant()
    def the_next_ones_are_wanted_and_not_on_their_way(self) -> None:
        assert self.delivery.next_live() == self.waits(self.live, self.end)
        assert self.delivery.next_of_gap() == self.waits(0, self.live)
        assert self.delivery.unsent_live == self.end - self.live


def test_it_does_what_sets_do() -> None:
    run_state_machine_as_test(Comparison, settings=settings(max_examples=80, stateful_step_count=30, deadline=None))

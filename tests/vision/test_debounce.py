from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.vision.debounce import Settled

S = 1_000_000_000


def test_a_value_counts_once_it_has_been_there_for_long_enough_and_since_it_began() -> None:
    value = Settled("out", 0)

    assert not value.see(1 * S, "in", 0.5)
    assert not value.see(int(1.4 * S), "in", 0.5)
    assert value.value == "out"
    assert value.see(int(1.5 * S), "in", 0.5)
    assert (value.value, value.since_ns) == ("in", 1 * S)
    assert not value.see(2 * S, "in", 0.5)


def test_what_comes_and_goes_begins_anew_each_time() -> None:
    value = Settled(value=False, since_ns=0)

    changes = [value.see(frame * S // 10, frame % 4 != 3, 0.5) for frame in range(100)]

    assert not any(changes)


def test_what_can_not_be_told_changes_nothing() -> None:
    value = Settled(value=False, since_ns=0)

    value.see(0, seen=True, after_s=0.5)
    assert not value.see(1 * S, seen=None, after_s=0.5)
    assert not value.value
    assert value.see(1 * S, seen=True, after_s=0.5), "it was so before, and nothing else was seen since"


def test_without_patience_it_is_so_at_once() -> None:
    value = Settled(0, 0)

    assert value.see(1, 7, 0.0)
    assert value.value == 7


@given(st.lists(st.sampled_from([None, 0, 1, 2])), st.floats(0, 2))
def test_it_never_says_what_was_not_seen(seen: list[int | None], after_s: float) -> None:
    value = Settled(0, 0)
    for frame, each in enumerate(seen):
        changed = value.see(frame * S // 10, each, after_s)
        assert not changed or value.value == each
        assert value.since_ns <= frame * S // 10

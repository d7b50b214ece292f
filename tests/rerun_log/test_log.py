"""The log with Rerun's own encoder: what each receiver gets, in which order, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log import rrd
from edge.rerun_log.delivery import Ranges
from edge.rerun_log.log import Entry, Receiver, SceneLog
from edge.rerun_log.observations import observation_parcel
from edge.rerun_log.parcel import Parcel
from edge.stats import DropCause, Stats
from tests.conftest import frame, observe, pose
from tests.rerun_log.scenes import points_parcel, scene, video_parcel

pytestmark = pytest.mark.integration

PLENTY = 10_000_000
SPARE = 200
"""Entries of as many pictures differ by some bytes, which are no room for another one."""

LINK = "link"


class Cupboard:
    """A store of so many entries. What it takes it has at once."""

    def __init__(self, log: SceneLog, *, room: int = 1000) -> None:
        self.entries: dict[int, Entry] = {}
        self.room = room
        self.awaited_from: int | None = None
        """What is told of entries from here on comes later, by `catch_up`."""
        self.noted: dict[str, Ranges] = {}
        self._log = log

    def follow(self, entry: Entry) -> None:
        self.entries[entry.number] = entry

    def tidy(self) -> None:
        """What is too much goes. A follower must not do this while it is told of an entry."""
        gone = [self.entries.pop(number) for number in sorted(self.entries)[: max(0, len(self.entries) - self.room)]]
        self._log.gone([(entry.number, entry.rows) for entry in gone])

    def holds(self, number: int) -> bool:
        return number in self.entries

    def showing_more_than(self, most: Shows) -> Ranges:
        """As if each entry had a file of its own."""
        return Ranges((number, number + 1) for number, entry in self.entries.items() if entry.shows > most)

    def rows(self, numbers: Ranges) -> int:
        return sum(entry.rows for number, entry in self.entries.items() if number in numbers)

    def read(self, number: int) -> Entry | None:
        return self.entries.get(number)

    def owed(self, receiver: str) -> Ranges:
        return Ranges()

    def awaits(self, number: int) -> bool:
        return self.awaited_from is not None and number >= self.awaited_from

    def note(self, receiver: str, wanted: Ranges) -> bool:
        self.noted[receiver] = wanted
        return True

    def note_soon(self, receiver: str, wanted: Ranges) -> None:
        self.note(receiver, wanted)


class Bench:
    """A log with a link."""

    def __init__(self, *, memory_bytes: int = PLENTY) -> None:
        self.stats = Stats([])
        self.now_s = 0.0
        self.log = SceneLog(self.stats, clock=lambda: self.now_s)
        self.log.describe(scene())
        self.log.memory_bytes = memory_bytes
        self.store: Cupboard | None = None
        self.entries: list[Entry] = []
        self._videos = Counter[str]()

    def close(self) -> None:
        self.log.close()

    def keep_longer(self, room: int = 1000) -> Cupboard:
        store = self.store = Cupboard(self.log, room=room)

        def follow(entry: Entry) -> None:
            store.follow(entry)
            self.entries.append(entry)

        self.log.keep_longer(store, follow)
        return store

    def attach(self, key: str = LINK) -> Receiver:
        return self.log.attach(key, key, lambda: None)

    def video(self, kinds: str, camera: str = "front", *, size: int = 100) -> None:
        """An entry for each letter: k with a keyframe, d without."""
        for kind in kinds:
            number = self._videos[camera]
            self._videos[camera] += 1
            self.put(video_parcel(number, camera=camera, keyframe=kind == "k", rows=2, nbytes=size // 2))

    def put(self, parcel: Parcel) -> None:
        self.log.put(parcel)
        if self.store is not None:
            self.store.tidy()

    def dropped(self, cause: DropCause | None = None, name: str = LINK) -> int:
        drops = self.stats.drops().items()
        return sum(items for (place, why), items in drops if place == name and cause in (None, why))

    def sent(self, name: str = LINK) -> int:
        return self.stats.sends().get(f"{name} rows", 0)

    def live(self, receiver: Receiver) -> list[int]:
        return [entry.number for entry in iter(lambda: self.log.next_live(receiver), None)]

    def gap(self, receiver: Receiver) -> list[int]:
        return [entry.number for entry in iter(lambda: self.log.next_of_gap(receiver), None)]

    def acknowledge(self, receiver: Receiver, *numbers: int) -> None:
        self.log.acknowledged(receiver, [(number, 2) for number in numbers])

    def fail(self, receiver: Receiver, *numbers: int) -> None:
        self.log.failed(receiver, [(number, 2) for number in numbers])


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_entries_are_the_chunks_and_nothing_else_in_the_order_in_which_they_came(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    parcels = [video_parcel(0), points_parcel(0), video_parcel(1, keyframe=False)]
    for parcel in parcels:
        bench.log.put(parcel)
    entries = list(iter(lambda: bench.log.next_live(receiver), None))
    assert [(entry.number, entry.rows, entry.entity, entry.since) for entry in entries] == [
        (0, parcels[0].rows, "/camera/front/video", 0),
        (1, parcels[1].rows, "", 1),
        (2, parcels[2].rows, "/camera/front/video", 0),
    ]
    kinds = [[message.kind for message in rrd.messages(entry.framed)] for entry in entries]
    assert kinds == [[rrd.Kind.CHUNK] * len(parcel.chunks) for parcel in parcels]


def test_without_receivers_nothing_is_kept(bench: Bench) -> None:
    bench.video("kdd")
    assert bench.log.kept_bytes == 0
    bench.attach()
    bench.video("kdd")
    assert bench.log.kept_bytes > 0
    bench.log.retain(())
    assert bench.log.kept_bytes == 0


def test_memory_holds_the_newest_and_what_goes_is_counted_by_the_cause_at_that_time(bench: Bench) -> None:
    receiver = bench.attach()
    bench.video("k" * 5, size=1000)
    bench.log.memory_bytes = bench.log.kept_bytes + SPARE
    bench.video("k", size=1000)
    assert bench.log.kept_bytes <= bench.log.memory_bytes
    receiver.cause = DropCause.SLOW_RECEIVER
    bench.video("kk", size=1000)
    assert (bench.dropped(DropCause.DISCONNECTED), bench.dropped(DropCause.SLOW_RECEIVER)) == (2, 4)
    bench.log.connected(receiver)
    assert [*bench.live(receiver), *bench.gap(receiver)] == [7, 3, 4, 5, 6]


def test_the_newest_entry_stays_however_large_it_is(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.log.memory_bytes = 1
    bench.video("kk", size=5000)
    assert bench.live(receiver) == [1]


def test_what_all_have_stays_in_memory_for_one_that_forgets(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("kdkd")
    bench.acknowledge(receiver, *bench.live(receiver))
    assert not bench.log.has_more(receiver)
    bench.log.forgotten(receiver)
    bench.log.connected(receiver)
    assert (bench.live(receiver), bench.gap(receiver)) == ([2, 3], [0, 1])


def test_what_follows_what_the_receiver_has_is_sent_after_a_broken_connection(bench: Bench) -> None:
    """Also when no keyframe is among it."""
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("kdd")
    assert bench.live(receiver) == [0, 1, 2]
    bench.acknowledge(receiver, 0, 1)
    bench.fail(receiver, 2)
    bench.video("dk")
    bench.log.connected(receiver)
    assert (bench.live(receiver), bench.gap(receiver)) == ([4], [2, 3])
    assert not bench.dropped()


def test_a_gap_with_a_hole_goes_on_with_a_keyframe_of_each_camera(bench: Bench) -> None:
    receiver = bench.attach()
    for camera in ("front", "back"):
        bench.video("k", camera, size=1000)
    room = bench.log.kept_bytes
    bench.video("d", "front", size=1000)  # 2, whose keyframe goes
    bench.video("d", "back", size=1000)
    bench.put(points_parcel(0))
    bench.video("k", "back", size=1000)  # 5
    bench.video("d", "back", size=1000)
    bench.video("d", "front", size=1000)
    bench.video("k", "front", size=1000)  # 8
    bench.video("d", "front", size=1000)
    bench.log.memory_bytes = bench.log.kept_bytes - room // 2 + SPARE
    bench.video("d", "front", size=1000)
    bench.log.connected(receiver)
    sent = sorted([*bench.live(receiver), *bench.gap(receiver)])
    assert sent == [4, 5, 6, 8, 9, 10]
    assert bench.dropped(DropCause.BROKEN_GROUP) == 2 * 3


def test_a_new_peer_gets_no_end_of_a_group_whose_beginning_is_gone(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("kdd", size=1000)
    bench.acknowledge(receiver, *bench.live(receiver))
    bench.log.memory_bytes = bench.log.kept_bytes + SPARE
    bench.video("dkd", size=1000)
    bench.acknowledge(receiver, *bench.live(receiver))
    bench.log.forgotten(receiver)
    bench.log.connected(receiver)
    assert [*bench.live(receiver), *bench.gap(receiver)] == [4, 5]
    assert not bench.dropped(), "its rows were sent once"


def test_a_receiver_that_comes_amid_a_group_begins_with_the_next_keyframe(bench: Bench) -> None:
    bench.video("kd")
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("ddkd")
    assert bench.live(receiver) == [4, 5]


def test_a_peer_that_comes_gets_the_newest_from_the_keyframes_on_and_then_the_rest(bench: Bench) -> None:
    receiver = bench.attach()
    bench.video("kddkdd")
    bench.put(points_parcel(0))
    bench.log.connected(receiver)
    assert (bench.live(receiver), bench.gap(receiver)) == ([3, 4, 5, 6], [0, 1, 2])
    assert (bench.live(receiver), bench.gap(receiver)) == ([], [])


def test_one_that_takes_less_than_comes_gets_the_newest_first(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("kdddkddd")
    assert bench.log.next_live(receiver) is not None
    bench.log.catch_up(receiver, 10)
    assert bench.log.next_live(receiver) is not None
    bench.log.catch_up(receiver, 3)
    assert (bench.live(receiver), bench.gap(receiver)) == ([4, 5, 6, 7], [2, 3])


def test_of_groups_however_long_a_new_peer_gets_the_newest_from_its_beginning(bench: Bench) -> None:
    receiver = bench.attach()
    bench.video("kd", "back")
    bench.now_s += 5
    bench.video("k" + "d" * 300)
    bench.log.connected(receiver)
    assert bench.live(receiver) == [*range(2, 303)], "the other camera has long ended"
    assert bench.gap(receiver) == [0, 1]


def test_a_camera_is_not_forgotten_for_all_that_others_and_the_log_have_to_say(bench: Bench) -> None:
    receiver = bench.attach()
    bench.video("k", "slow")
    for _ in range(20):
        bench.video("kd", "fast")
        for _ in range(5):
            bench.put(points_parcel(0))
    bench.now_s += 2
    bench.video("d", "slow")
    bench.log.connected(receiver)
    assert bench.live(receiver)[0] == 0
    bench.now_s += 2
    bench.video("k", "fast")
    bench.log.connected(receiver)
    assert bench.live(receiver)[0] == 0, "it goes on"
    bench.now_s += 2
    bench.video("k", "fast")
    bench.log.connected(receiver)
    assert bench.live(receiver)[0] > 0, "it does not"


def test_where_the_newest_group_is_too_long_to_catch_up_with_a_keyframe_is_asked_for(bench: Bench) -> None:
    asked: list[int] = []
    bench.log.want_keyframes = lambda: asked.append(bench.log.next)
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("k" + "d" * 5)
    bench.log.catch_up(receiver, 10)
    assert not asked, "it is not behind"
    bench.video("d" * 6)
    bench.log.catch_up(receiver, 10)
    assert asked == [12]
    bench.video("kd")
    bench.log.catch_up(receiver, 10)
    assert bench.live(receiver) == [12, 13]
    assert asked == [12], "with the one that came it has"


def test_each_receiver_goes_at_its_own_pace(bench: Bench) -> None:
    quick, slow = bench.attach("quick"), bench.attach("slow")
    bench.log.connected(quick)
    bench.video("kd", size=1000)
    bench.acknowledge(quick, *bench.live(quick))
    bench.log.memory_bytes = bench.log.kept_bytes + SPARE
    bench.video("kd", size=1000)
    assert (bench.dropped(name="quick"), bench.dropped(name="slow")) == (0, 4)
    assert bench.live(quick) == [2, 3]
    bench.log.connected(slow)
    assert (bench.live(slow), bench.gap(slow)) == ([2, 3], [])


def test_what_is_on_its_way_is_lost_only_when_it_comes_back_and_is_not_here_any_more(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("kk", size=1000)
    bench.log.memory_bytes = bench.log.kept_bytes + SPARE
    assert bench.live(receiver) == [0, 1]
    bench.video("kk", size=1000)
    assert bench.dropped() == 0
    bench.acknowledge(receiver, 0)
    bench.fail(receiver, 1)
    assert (bench.dropped(), bench.sent()) == (2, 2)
    bench.log.connected(receiver)
    assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [2, 3]


def test_what_the_store_has_is_sent_from_there(bench: Bench) -> None:
    store = bench.keep_longer()
    receiver = bench.attach()
    bench.log.memory_bytes = 1
    bench.video("kdkdkd", size=1000)
    assert not bench.dropped()
    bench.log.connected(receiver)
    assert [*bench.live(receiver), *bench.gap(receiver)] == [*range(6)]
    bench.fail(receiver, *range(6))
    store.room = 3
    bench.video("k", size=1000)
    assert bench.dropped(DropCause.DISCONNECTED) == 2 * 4
    bench.log.connected(receiver)
    assert [*bench.live(receiver), *bench.gap(receiver)] == [6, 4, 5]


def test_what_waits_to_be_stored_stays_in_memory_as_long_as_it_may(bench: Bench) -> None:
    store, waiting = Cupboard(bench.log), list[Entry]()
    store.awaited_from = 0
    bench.log.keep_longer(store, waiting.append, queue_bytes=PLENTY)
    receiver = bench.attach()
    bench.log.memory_bytes = 1
    bench.video("kkk", size=1000)
    assert bench.log.kept_bytes > 3000
    for entry in waiting[:2]:
        store.follow(entry)
    store.awaited_from = 3  # the third one is let go by the lane in front of the store
    bench.video("k", size=1000)
    assert not bench.dropped(DropCause.SINK_FAILED)
    assert bench.dropped(DropCause.DISCONNECTED) == 2
    bench.log.keep_longer(store, waiting.append, queue_bytes=1000)
    bench.video("kk", size=1000)
    assert bench.dropped(DropCause.DISCONNECTED) == 2 * 3, "no more than a queue holds"
    bench.log.connected(receiver)
    assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [0, 1, 5]


def test_a_receiver_of_one_run_leaves_no_debts(bench: Bench) -> None:
    store = Cupboard(bench.log)
    bench.log.keep_longer(store, store.follow, forgetful=("viewer",))
    for name in (LINK, "viewer"):
        bench.attach(name)
    bench.video("k")
    bench.log.close()
    assert store.noted.keys() == {LINK}
    assert bench.stats.drops() == {("viewer", DropCause.STOPPED): 2}


def test_another_receiver_of_the_same_key_goes_on_where_the_one_before_ended(bench: Bench) -> None:
    woken: list[str] = []
    first = bench.log.attach("hub", LINK, lambda: woken.append("first"))
    take_over = lambda: woken.append("second")  # noqa: E731 - to be told apart
    bench.video("k")
    second = bench.log.attach("hub", LINK, take_over)
    bench.log.detach(first, lambda: None)  # the one before ends after that
    bench.video("k")
    assert woken == ["first", "second"]
    bench.log.connected(second)
    assert sorted([*bench.live(second), *bench.gap(second)]) == [0, 1]
    bench.log.detach(second, take_over)
    bench.video("k")
    assert woken == ["first", "second"]
    assert second.delivery.next_live() == 2


def test_one_that_is_retained_no_more_is_counted_out_and_begins_anew(bench: Bench) -> None:
    receiver, other = bench.attach(), bench.attach("other")
    bench.video("kd")
    bench.log.retain(["other"])
    assert bench.stats.drops() == {(LINK, DropCause.STOPPED): 4}
    bench.video("k")
    again = bench.attach()
    assert again is not receiver
    assert (bench.log.behind(again), bench.log.behind(other)) == (0, 3)


def test_another_description_goes_to_all_and_is_what_a_connection_begins_with(bench: Bench) -> None:
    receiver = bench.attach()
    bench.log.connected(receiver)
    bench.video("k")
    before = bench.log.description
    bench.log.describe(scene(cameras=("front", "back")))
    bench.video("k", "back")
    assert bench.log.description != before
    entries = list(iter(lambda: bench.log.next_live(receiver), None))
    assert [entry.rows for entry in entries] == [2, 0, 2]
    assert entries[1].framed == bench.log.description.messages


class TestPrivacy:
    """k, d: video; p: points."""

    def put(self, bench: Bench, kinds: str) -> None:
        for kind in kinds:
            if kind == "p":
                bench.put(points_parcel(0))
            else:
                bench.video(kind, size=1000)

    @pytest.mark.parametrize(("mode", "passes"), [("full", 3), ("mask", 2), ("landmarks", 1)])
    def test_what_shows_more_than_the_mode_allows_is_refused_and_counted(
        self, bench: Bench, mode: Mode, passes: int
    ) -> None:
        assert not bench.log.describe(scene(privacy="full")), "it is as it was"
        bench.log.describe(scene(privacy=mode, video="off"))
        receiver, store = bench.attach(), bench.keep_longer()
        bench.log.connected(receiver)
        people = [observe(frame(seq=0), [pose(mask=(12, 16))])]
        for parcel in (points_parcel(0), observation_parcel("front", people, mask="image"), video_parcel(0)):
            bench.put(parcel)
        assert len(bench.live(receiver)) == len(store.entries) == passes
        rows = {3: 0, 2: 8, 1: 8 + 1}[passes]
        assert bench.dropped(DropCause.PRIVATE, "rerun log") == rows

    def test_what_is_kept_in_memory_of_before_is_forgotten_as_far_as_it_shows_more(self, bench: Bench) -> None:
        receiver = bench.attach()
        self.put(bench, "kpdp")
        before = bench.log.kept_bytes
        assert bench.log.describe(scene(privacy="landmarks", video="off"))
        assert bench.log.kept_bytes < before - 2000 + len(bench.log.description.messages)
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [1, 3, 4]
        assert bench.stats.drops() == {(LINK, DropCause.PRIVATE): 4}

    def test_what_was_withheld_stays_so_in_an_opener_mode_and_for_a_server_that_has_lost_all(
        self, bench: Bench
    ) -> None:
        bench.keep_longer()
        receiver = bench.attach()
        bench.log.connected(receiver)
        self.put(bench, "pkdp")
        bench.log.describe(scene(privacy="landmarks", video="off"))
        self.put(bench, "p")
        bench.log.describe(scene())
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [0, 3, 4, 5, 6]
        bench.log.forgotten(receiver)
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [0, 3, 4, 5, 6]

    def test_of_what_the_store_holds_of_before_nothing_is_sent_that_shows_more(self, bench: Bench) -> None:
        store, receiver = bench.keep_longer(), bench.attach()
        self.put(bench, "kpdpd")
        bench.log.memory_bytes = 1
        self.put(bench, "p")
        bench.log.describe(scene(privacy="landmarks", video="off"))
        assert store.holds(0), "it stays there"
        assert bench.dropped(DropCause.PRIVATE) == 6, "all at once, and not one by one when its turn comes"
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [1, 3, 5, 6]
        assert bench.stats.drops() == {(LINK, DropCause.PRIVATE): 6}

    def test_what_a_store_has_in_a_file_that_shows_more_is_not_sent_from_there(self, bench: Bench) -> None:
        """Points that stood in memory when the mode became stricter, and are in a file with pictures."""
        store, receiver = bench.keep_longer(), bench.attach()
        self.put(bench, "kp")
        store.entries = {number: entry._replace(shows=Shows.PICTURES) for number, entry in store.entries.items()}
        bench.log.describe(scene(privacy="landmarks", video="off"))
        bench.log.memory_bytes = 1
        self.put(bench, "p")
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [2, 3]
        assert bench.stats.drops() == {(LINK, DropCause.PRIVATE): 4}

    def test_a_peer_that_has_forgotten_gets_none_of_it_again(self, bench: Bench) -> None:
        bench.keep_longer()
        receiver = bench.attach()
        bench.log.connected(receiver)
        self.put(bench, "kpdp")
        bench.acknowledge(receiver, *bench.live(receiver))
        bench.log.describe(scene(privacy="landmarks", video="off"))
        bench.log.forgotten(receiver)
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [1, 3, 4]
        assert not bench.stats.drops(), "it had the rest once"

    def test_what_was_on_its_way_is_not_sent_again(self, bench: Bench) -> None:
        bench.keep_longer()
        receiver = bench.attach()
        bench.log.connected(receiver)
        self.put(bench, "kpd")
        assert bench.live(receiver) == [0, 1, 2]
        bench.log.describe(scene(privacy="mask", video="off"))
        bench.fail(receiver, 0, 1, 2)
        bench.log.connected(receiver)
        assert sorted([*bench.live(receiver), *bench.gap(receiver)]) == [1, 3]

    def test_a_description_of_an_opener_mode_is_sent_no_more(self, bench: Bench) -> None:
        receiver = bench.attach()
        bench.log.describe(scene(cameras=("front", "back")))
        bench.log.describe(scene(privacy="landmarks", video="off"))
        bench.log.connected(receiver)
        (entry,) = list(iter(lambda: bench.log.next_of_gap(receiver), None))
        assert entry.framed == bench.log.description.messages

    def test_before_a_stricter_mode_begins_what_shows_more_is_taken_and_handed_out_no_more(self, bench: Bench) -> None:
        """While the lanes of the mode before still end."""
        bench.keep_longer()
        receiver = bench.attach()
        bench.log.connected(receiver)
        self.put(bench, "kpd")
        bench.log.restrict(Shows.NUMBERS)
        self.put(bench, "pdp")
        assert bench.live(receiver) == [1, 3, 4]
        assert bench.stats.drops() == {(LINK, DropCause.PRIVATE): 4, ("rerun log", DropCause.PRIVATE): 2}
        bench.log.restrict(Shows.PICTURES)
        self.put(bench, "k")
        assert not bench.live(receiver), "what was taken away only a description gives back"
        assert not bench.log.describe(scene())
        self.put(bench, "k")
        assert len(bench.live(receiver)) == 2

    def test_an_opener_mode_lets_pictures_through_again_from_then_on(self, bench: Bench) -> None:
        receiver = bench.attach()
        for mode, stricter in (("mask", True), ("landmarks", True), ("landmarks", False), ("full", False)):
            assert bench.log.describe(scene(privacy=mode)) is stricter
            self.put(bench, "kp")
        bench.log.connected(receiver)
        sent = sorted([*bench.live(receiver), *bench.gap(receiver)])
        entries = {number: bench.log._kept[number].shows for number in sent}
        assert list(entries.values()).count(Shows.PICTURES) == 2, "the newest description, and the newest picture"
        assert bench.dropped(DropCause.PRIVATE, "rerun log") == 6


class Ledger(RuleBasedStateMachine):
    """Whatever happens, each row is sent, dropped or still wanted; video never lacks what it continues; and nothing is
    sent that shows more than the mode of that time allows."""

    names = ("hub", "viewer")

    @initialize(memory=st.sampled_from([1, 3000, PLENTY]), room=st.sampled_from([0, 3, 8]))
    def begin(self, memory: int, room: int) -> None:
        self.bench = Bench(memory_bytes=memory)
        self.store = self.bench.keep_longer(room) if room else None
        self.rows = dict.fromkeys(self.names, 0)
        self.on_its_way: dict[str, dict[int, int]] = {name: {} for name in self.names}
        self.entries: dict[int, Entry] = {}
        self.has: dict[str, set[int]] = {name: set() for name in self.names}
        self.again: dict[str, set[int]] = {name: set() for name in self.names}
        self.is_connected = dict.fromkeys(self.names, False)
        self.log = self.bench.log
        self.receivers = {name: self.bench.attach(name) for name in self.names}
        self.number_of_rows: dict[int, int] = {}
        self.most = Shows.PICTURES

    @rule(kinds=st.text("kddp", min_size=1, max_size=6), camera=st.sampled_from(["front", "back"]))
    def put(self, kinds: str, camera: str) -> None:
        for number, kind in enumerate(kinds):
            before = len(self.number_of_rows)
            if kind == "p":
                self.bench.put(points_parcel(number, rows=3))
            else:
                self.bench.video(kind, camera, size=1000)
                if self.most < Shows.PICTURES:
                    continue
            self.number_of_rows[before] = 3 if kind == "p" else 2
            for name in self.names:
                self.rows[name] += self.number_of_rows[before]

    @rule(mode=st.sampled_from(get_args(Mode)))
    def become(self, mode: Mode) -> None:
        """As after a reload: the links have ended."""
        for name in self.names:
            self.fail(name)
        self.number_of_rows[self.log.next] = 0
        self.log.describe(scene(privacy=mode))
        self.most = most_shown(mode)
        if self.store is not None:
            self.store.tidy()

    @rule(name=st.sampled_from(names))
    def connect(self, name: str) -> None:
        if self.is_connected[name]:
            self.log.failed(self.receivers[name], list(self.on_its_way[name].items()))
        self.on_its_way[name].clear()
        self.is_connected[name] = True
        self.log.connected(self.receivers[name])

    @rule(name=st.sampled_from(names), live=st.booleans(), most=st.integers(1, 8))
    def send(self, name: str, live: bool, most: int) -> None:  # noqa: FBT001 - hypothesis names its arguments
        take = self.log.next_live if live else self.log.next_of_gap
        for _ in range(most):
            if self.is_connected[name] and (entry := take(self.receivers[name])):
                assert entry.number not in self.on_its_way[name]
                assert entry.number not in self.has[name]
                assert entry.rows == self.number_of_rows[entry.number]
                assert entry.shows <= self.most
                self.entries[entry.number] = entry
                self.on_its_way[name][entry.number] = entry.rows

    @rule(name=st.sampled_from(names), most=st.integers(1, 8))
    def acknowledge(self, name: str, most: int) -> None:
        done = list(self.on_its_way[name].items())[:most]
        self.log.acknowledged(self.receivers[name], done)
        for number, _ in done:
            del self.on_its_way[name][number]
            self.has[name].add(number)
            self.again[name].discard(number)

    @rule(name=st.sampled_from(names))
    def fail(self, name: str) -> None:
        if self.is_connected[name]:
            self.log.failed(self.receivers[name], list(self.on_its_way[name].items()))
            self.on_its_way[name].clear()
            self.is_connected[name] = False

    @rule(name=st.sampled_from(names))
    def forget(self, name: str) -> None:
        """Another peer: what is in memory is wanted again, and not counted again when it has it."""
        self.fail(name)
        wanted = self.wanted(name)
        self.log.forgotten(self.receivers[name])
        self.again[name] |= self.wanted(name) - wanted
        self.has[name].clear()

    @rule(name=st.sampled_from(names))
    def catch_up(self, name: str) -> None:
        self.log.catch_up(self.receivers[name], 3)

    def wanted(self, name: str) -> set[int]:
        return {number for start, end in self.receivers[name].delivery.wanted for number in range(start, end)}

    @invariant()
    @precondition(lambda self: hasattr(self, "bench"))
    def it_adds_up(self) -> None:
        for name in self.names:
            left = sum(self.number_of_rows[number] for number in self.wanted(name) - self.again[name])
            assert self.bench.sent(name) + self.bench.dropped(name=name) + left == self.rows[name]
            assert self.wanted(name) >= {*self.on_its_way[name]}

    @invariant()
    @precondition(lambda self: hasattr(self, "bench"))
    def memory_is_as_large_as_it_may_be(self) -> None:
        newest = max((len(entry.framed) for entry in self.log._kept.values()), default=0)
        assert self.log.kept_bytes <= max(self.log.memory_bytes, newest)

    def teardown(self) -> None:
        """In the end each has all that is still here, and can decode all that it has."""
        if not hasattr(self, "bench"):
            return
        for name in self.names:
            self.connect(name)
            while self.log.has_more(self.receivers[name]):
                self.send(name, live=True, most=8)
                self.send(name, live=False, most=8)
            self.acknowledge(name, 10_000)
            self.it_adds_up()
            assert not self.wanted(name)
            of_camera: dict[str, list[int]] = {}
            for number, entry in sorted(self.entries.items()):
                if entry.entity:
                    of_camera.setdefault(entry.entity, []).append(number)
            for numbers in of_camera.values():
                for before, number in pairwise([-1, *numbers]):
                    entry = self.entries[number]
                    if number in self.has[name] and not entry.keyframe:
                        assert before in self.has[name]
                        assert before >= entry.since
        self.bench.close()


def test_whatever_happens_each_row_is_sent_or_counted_and_video_can_be_decoded() -> None:
    run_state_machine_as_test(Ledger, settings=settings(max_examples=35, stateful_step_count=25, deadline=None))

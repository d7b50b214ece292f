from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from edge.mqtt import event_store
from edge.mqtt.event_store import FILE_NAME, SIZE_BYTES, Entry, EventStore, Loss, StoreDamagedError

SMALL_BYTES = 128 * 1024


def entry(number: int, camera: str = "front", content: bytes = b"{}", **about: object) -> Entry:
    return Entry(f"s-{number}", camera, content, Loss(1, number, number), **about)  # type: ignore[arg-type]


@contextlib.contextmanager
def opened(directory: Path, size_bytes: int = SMALL_BYTES) -> Iterator[EventStore]:
    store = EventStore(directory, size_bytes=size_bytes)
    try:
        yield store
    finally:
        store.close()


def sizes(directory: Path) -> dict[str, tuple[int, bool]]:
    """Of each file the length, and whether the disk holds all of it."""
    return {
        path.name: (path.stat().st_size, path.stat().st_blocks * 512 >= path.stat().st_size)
        for path in directory.iterdir()
    }


def test_all_the_space_is_taken_from_the_beginning_and_never_more(tmp_path: Path) -> None:
    with opened(tmp_path, SIZE_BYTES) as store:
        store.add([entry(0)], {})
        at_first = sizes(tmp_path)
        assert all(whole for _, whole in at_first.values())
        assert SIZE_BYTES * 0.99 < at_first[FILE_NAME][0] <= SIZE_BYTES
        for start in range(1, 20_000, 50):
            store.add([entry(number, content=b"x" * 900) for number in range(start, start + 50)], {})
        assert sizes(tmp_path) == at_first
        assert store.losses()["front"].count > 10_000
    assert sizes(tmp_path) == at_first, "nor does the end give any of it away"
    with opened(tmp_path, SIZE_BYTES):
        assert sizes(tmp_path) == at_first


def test_a_copy_taken_at_any_time_is_what_a_killed_process_leaves(tmp_path: Path) -> None:
    """The files as they are, read by another process: as after kill -9."""
    with opened(tmp_path / "live") as store:
        for number in range(300):
            store.add([entry(number, content=b"x" * 100)], {})
            if number % 3 == 0:
                store.remove([kept.seq for kept in store.after(0, 1)])
            if number % 50 == 0:
                copy = tmp_path / f"copy-{number}"
                shutil.copytree(tmp_path / "live", copy)
                with opened(copy) as after:
                    assert after.after(0, 1000) == store.after(0, 1000)


def test_the_log_that_is_put_back_after_the_end_is_no_news(tmp_path: Path) -> None:
    for number in range(5):
        with opened(tmp_path) as store:
            assert [kept.event_id for kept in store.after(0, 100)] == [f"s-{n}" for n in range(number)]
            store.add([entry(number)], {})
    assert sorted(sizes(tmp_path)) == [FILE_NAME, f"{FILE_NAME}-wal"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_crash_while_it_closes_loses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.add([entry(1)], {})
    # Between SQLite's removing the log and the reserve's taking its place.
    (tmp_path / f"{FILE_NAME}-wal").rename(tmp_path / f"{FILE_NAME}-reserve")
    with opened(tmp_path) as store:
        store.add([entry(2)], {})
        # Before: both are the same file.
        os.link(tmp_path / f"{FILE_NAME}-wal", tmp_path / f"{FILE_NAME}-reserve")
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-reserve"):
            shutil.copy(tmp_path / name, copy / name)
    for directory in (tmp_path, copy):
        with opened(directory) as store:
            assert [kept.event_id for kept in store.after(0, 9)] == ["s-1", "s-2"]


def test_a_file_system_without_links_costs_only_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with opened(tmp_path) as store:
        store.add([entry(1)], {})
    with opened(tmp_path) as store:
        assert len(store) == 1


def test_an_addition_that_fails_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.add([entry(1)], {})
        too_large = entry(3, content=b"x" * SMALL_BYTES)
        with pytest.raises(sqlite3.Error):
            store.add([entry(2), too_large], {"front": Loss(1, 0, 0)})
        assert [kept.event_id for kept in store.after(0, 9)] == ["s-1"]
        assert store.losses() == {}
        assert store.add([entry(4)], {}).seqs == [2]


def test_another_versions_file_is_not_touched(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.add([entry(1)], {})
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("PRAGMA user_version=2")
        db.commit()
    with pytest.raises(StoreDamagedError, match="version is 2, not 1"):
        EventStore(tmp_path, size_bytes=SMALL_BYTES)
    assert [kept.event_id for kept in event_store.set_aside(tmp_path)] == ["s-1"]


def test_what_was_never_ended_is_forgotten_when_it_is_too_much(tmp_path: Path) -> None:
    with opened(tmp_path, SIZE_BYTES) as store:
        store.add([entry(number, begins=True) for number in range(1200)], {})
        left = store.left_open()
        assert (len(left), left[0], left[-1]) == (1000, ("s-200", "front"), ("s-1199", "front"))


class Comparison(RuleBasedStateMachine):
    """The store does what lists and dictionaries do, also when it is closed and opened, in memory and on disk."""

    place: Path | None = None

    @initialize(place=st.sampled_from(["memory", "disk"]))
    def begin(self, place: str) -> None:
        self.directory = None if place == "memory" or self.place is None else self.place / os.urandom(8).hex()
        self.store = EventStore(self.directory, size_bytes=SMALL_BYTES)
        self.number = 0
        self.kept: list[tuple[int, str, bytes]] = []
        self.open: list[str] = []
        self.lost = 0

    @rule(amount=st.integers(1, 30), size=st.integers(0, 9000), begins=st.booleans())
    def add(self, amount: int, size: int, begins: bool) -> None:  # noqa: FBT001 - hypothesis names its arguments
        entries = [entry(self.number + each, content=b"x" * size, begins=begins) for each in range(amount)]
        self.number += amount
        self.keep(entries)
        self.open += [each.event_id for each in entries if begins]

    def keep(self, entries: list[Entry]) -> None:
        added = self.store.add(entries, {"back": Loss(2, 5, 6)})
        self.kept += [(seq, each.event_id, each.content) for seq, each in zip(added.seqs, entries, strict=True)]
        gone = set(added.gone)
        assert gone == {seq for seq, *_ in self.kept[: len(gone)]}, "the oldest go"
        del self.kept[: len(gone)]
        self.lost += len(gone)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        seqs = data.draw(st.lists(st.sampled_from([seq for seq, *_ in self.kept] or [0]), max_size=5, unique=True))
        assert self.store.remove(seqs) == sum(seq in seqs for seq, *_ in self.kept)
        self.kept = [kept for kept in self.kept if kept[0] not in seqs]

    @rule()
    def end_one(self) -> None:
        if self.open:
            self.number += 1
            self.keep([entry(self.number - 1, ends=self.open.pop(0))])

    @rule()
    def reopen(self) -> None:
        if self.directory is not None:
            self.store.close()
            self.store = EventStore(self.directory, size_bytes=SMALL_BYTES)

    @invariant()
    def is_the_same(self) -> None:
        found = self.store.after(0, 10_000)
        assert [(kept.seq, kept.event_id, kept.content) for kept in found] == self.kept
        assert len(self.store) == len(self.kept)
        assert [event_id for event_id, _ in self.store.left_open()] == self.open
        assert self.store.losses().get("front", Loss(0, 0, 0)).count == self.lost

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def test_it_does_what_a_list_does(tmp_path: Path) -> None:
    Comparison.place = tmp_path
    try:
        run_state_machine_as_test(Comparison, settings=settings(max_examples=40, deadline=None))
    finally:
        Comparison.place = None


def test_a_close_that_can_not_empty_the_log_leaves_it(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    for number in range(40):
        store.add([Entry(f"s-{number}", "front", b"x" * 300, Loss(1, number, number))], {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))  # the log fits, the file's last pages can't be written
    try:
        store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = EventStore(tmp_path)
    assert len(store) == 40
    store.close()

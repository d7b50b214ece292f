from __future__ import annotations

import contextlib
import errno
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.event_log import EventLog
from edge.mqtt import event_store
from edge.mqtt import outbox as outbox_module
from edge.mqtt.event_store import EventStore
from edge.mqtt.outbox import UNWRITTEN_MOST, Outbox
from edge.reports import CameraBack, CameraEnded, CameraLost, EventsLost, Happening
from tests.conftest import eventually

SMALL_BYTES = 128 * 1024


class Desk:
    """An outbox, and the events that come into it."""

    def __init__(self, directory: Path | None, session: str = "s", *, size_bytes: int = SMALL_BYTES) -> None:
        self.events = EventLog(session)
        self.outbox = Outbox(directory, self.events.happened, size_bytes=size_bytes)
        self.events.listen(self.outbox.put)

    def happens(self, what: Happening | None = None, camera: str = "front") -> str:
        return self.events.happened(camera, what or CameraEnded("gone"))

    def ready(self) -> list[str]:
        """The ids of what can be sent."""
        return [waiting.event_id for waiting in self.outbox.waiting()]

    def told(self) -> list[dict[str, object]]:
        return [json.loads(waiting.content) for waiting in self.outbox.waiting()]

    def send_all(self) -> list[dict[str, object]]:
        """Be the sink, and a broker that acknowledges everything; what was sent."""
        sent: list[dict[str, object]] = []
        self.outbox.settle(10)

        def is_empty() -> bool:
            for waiting in self.outbox.waiting():
                sent.append(json.loads(waiting.content))
                self.outbox.remove(waiting.event_id)
            return len(self.outbox) == 0

        eventually(is_empty, 20)
        return sent

    def send_until_told(self, lost: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """All that is sent until so many are told as lost, and what of it tells so."""
        sent: list[dict[str, object]] = []

        def told() -> list[dict[str, object]]:
            return [event for event in sent if event["type"] == "events_lost"]

        def all_told() -> bool:
            sent.extend(self.send_all())
            return sum(int(str(event["count"])) for event in told()) == lost

        eventually(all_told)
        return sent, told()


@contextlib.contextmanager
def desk(directory: Path | None, session: str = "s", *, size_bytes: int = SMALL_BYTES) -> Iterator[Desk]:
    made = Desk(directory, session, size_bytes=size_bytes)
    made.outbox.start()
    try:
        yield made
    finally:
        made.outbox.close(5)


def ids(told: list[dict[str, object]]) -> list[object]:
    return [event["id"] for event in told]


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_events_wait_in_their_order_until_the_broker_has_them(tmp_path: Path, place: str) -> None:
    with desk(tmp_path if place == "disk" else None) as front:
        first, second, third = (front.happens() for _ in range(3))
        assert front.outbox.settle(5)
        eventually(lambda: front.ready() == [first, second, third])
        front.outbox.remove(second)
        front.outbox.remove(second)
        front.outbox.remove("s-9")

        assert front.ready() == [first, third]
        assert (len(front.outbox), front.outbox.lost) == (2, 0)
        assert front.outbox.durable is (place == "disk")


def test_what_the_broker_does_not_have_is_there_after_a_restart_and_goes_first(tmp_path: Path) -> None:
    with desk(tmp_path) as before:
        for _ in range(5):
            before.happens()
        assert before.outbox.settle(5)
        eventually(lambda: before.ready() == [f"s-{n}" for n in range(1, 6)])
        before.outbox.remove("s-1")
        before.outbox.remove("s-4")
    with desk(tmp_path, "t") as after:
        after.happens()
        assert ids(after.send_all()) == ["s-2", "s-3", "s-5", "t-1"]


def test_an_event_that_is_not_on_the_disk_can_not_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, may_write = threading.Event(), threading.Event()
    add = EventStore.add

    def slow(self: EventStore, *args: object) -> event_store.Added:
        added = add(self, *args)  # type: ignore[arg-type]
        written.set()
        assert may_write.wait(10)
        return added

    monkeypatch.setattr(EventStore, "add", slow)
    with desk(tmp_path) as front:
        front.happens()
        assert written.wait(10)
        assert (front.ready(), len(front.outbox), front.outbox.settle(0)) == ([], 1, False)
        may_write.set()
        eventually(lambda: front.ready() == ["s-1"])


def test_what_a_killed_process_counted_is_there_and_what_it_removed_is_not(tmp_path: Path) -> None:
    program = """
import sys, os, signal
from pathlib import Path
from tests.mqtt.test_outbox import Desk
front = Desk(Path(sys.argv[1]), "killed")
front.outbox.start()
for number in range(20):
    front.happens()
assert front.outbox.settle(10)
while not front.ready():
    pass
for event_id in front.ready()[:5]:
    front.outbox.remove(event_id)
while front.outbox._removed or front.outbox._removing:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -9
    with desk(tmp_path, "t") as after:
        assert ids(after.send_all()) == [f"killed-{n}" for n in range(6, 21)]


def test_what_a_session_left_open_is_ended_by_the_next_one(tmp_path: Path) -> None:
    with desk(tmp_path, "a") as first:
        lost = first.happens(CameraLost("unplugged"))
        first.happens(CameraBack(1.0, of=lost))
        first.happens(CameraLost("unplugged again"))
        first.happens(CameraLost("unplugged"), "back")
        first.send_all()
    with desk(tmp_path, "b") as second:
        eventually(lambda: len(second.told()) == 2)
        told = [(event["type"], event["camera"], event["of"]) for event in second.told()]
        assert told == [("interrupted", "front", "a-3"), ("interrupted", "back", "a-4")]
    with desk(tmp_path, "c") as third:
        assert len(third.send_all()) == 2, "it is not ended twice"


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_the_oldest_go_first_and_an_event_tells_of_them_when_there_is_room(tmp_path: Path, place: str) -> None:
    with desk(tmp_path if place == "disk" else None) as front:
        for _ in range(2000):
            front.happens()
            if len(front.outbox._new) > UNWRITTEN_MOST // 2:  # no faster than it is written
                front.outbox.settle(5)
        assert front.outbox.settle(20)
        eventually(front.ready)
        lost = front.outbox.lost
        assert 0 < lost < 2000
        assert len(front.outbox) == 2000 - lost
        assert front.ready()[0] == f"s-{lost + 1}"
        sent, told = front.send_until_told(lost)

        assert ids([event for event in sent if event not in told]) == [f"s-{n}" for n in range(lost + 1, 2001)]
        assert front.outbox.lost == lost


def test_losses_that_were_not_told_are_told_by_the_next_session(tmp_path: Path) -> None:
    with desk(tmp_path) as front:
        for _ in range(UNWRITTEN_MOST):
            front.happens()
        assert front.outbox.settle(20)
        lost = front.outbox.lost
        assert lost
    with desk(tmp_path, "t") as after:
        _, told = after.send_until_told(lost)
        assert len(told) == 1


class TestDiskTrouble:
    """The disk's answers are SQLite's own errors, raised in its place: real full disks are in tests/system."""

    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """While it is set the disk takes nothing."""
        full, add = threading.Event(), EventStore.add

        def failing(self: EventStore, *args: object) -> event_store.Added:
            if full.is_set():
                raise sqlite3.OperationalError("database or disk is full")
            return add(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(EventStore, "add", failing)
        return full

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox_module, "RETRY_FIRST_S", 0.05)
        monkeypatch.setattr(outbox_module, "RETRY_MOST_S", 0.1)

    def test_what_can_not_be_written_is_sent_all_the_same_and_is_on_the_disk_later(
        self, tmp_path: Path, broken: threading.Event, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with desk(tmp_path) as front:
            front.happens()
            assert front.outbox.settle(5)
            broken.set()
            for _ in range(3):
                front.happens()
            eventually(lambda: front.ready() == ["s-1", "s-2", "s-3", "s-4"])
            assert (front.outbox.durable, front.outbox.settle(5)) == (False, False)
            front.outbox.remove("s-1")
            front.outbox.remove("s-3")
            broken.clear()
            eventually(lambda: front.outbox.durable)
            assert front.outbox.settle(5)
            eventually(lambda: front.ready() == ["s-2", "s-4"])
            assert (len(front.outbox), front.outbox.lost) == (2, 0)
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        (warning,) = warnings
        assert "database or disk is full" in warning
        assert f"{tmp_path} can be written again" in caplog.text
        with desk(tmp_path, "t") as after:
            assert ids(after.send_all()) == ["s-2", "s-4"]

    def test_what_does_not_fit_into_memory_is_lost_the_oldest_first_counted_and_told(
        self, tmp_path: Path, broken: threading.Event
    ) -> None:
        with desk(tmp_path, size_bytes=1024 * 1024) as front:
            broken.set()
            for number in range(UNWRITTEN_MOST + 30):
                front.happens(camera="front" if number % 3 else "back")
            eventually(lambda: not front.outbox.durable and front.ready())
            assert len(front.outbox) == UNWRITTEN_MOST
            assert (front.outbox.lost, front.ready()[0]) == (30, "s-31")
            broken.clear()
            sent = front.send_all()
            eventually(lambda: front.outbox.durable and front.outbox.settle(5))
            eventually(lambda: sum(event["type"] == "events_lost" for event in sent + front.told()) == 2)
            sent += front.send_all()
        told = {event["camera"]: event["count"] for event in sent if event["type"] == "events_lost"}
        assert told == {"front": 20, "back": 10}

    def test_a_directory_that_is_not_there_yet_is_made_and_one_that_can_not_be_is_tried_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "state").write_text("in the way")
        with desk(tmp_path / "state" / "deep") as front:
            front.happens()
            eventually(lambda: front.ready() == ["s-1"])
            assert not front.outbox.durable
            assert "Not a directory" in caplog.text
            (tmp_path / "state").unlink()
            eventually(lambda: front.outbox.durable)
            assert front.outbox.settle(5)
        assert (tmp_path / "state" / "deep" / event_store.FILE_NAME).exists()

    def test_two_daemons_do_not_share_one(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with desk(tmp_path, "a") as first:
            first.happens()
            assert first.outbox.settle(5)
            with desk(tmp_path, "b") as second:
                second.happens()
                eventually(lambda: second.ready() == ["b-1"])
                assert "another edge-pose is using it" in caplog.text
                second.send_all()
            assert first.ready() == ["a-1"]

    def test_a_damaged_file_is_set_aside_and_what_can_be_read_of_it_is_sent(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with desk(tmp_path, size_bytes=SMALL_BYTES) as front:
            for _ in range(200):
                front.happens(CameraEnded("x" * 300))
            assert front.outbox.settle(5)
            kept = len(front.outbox)
        path = tmp_path / event_store.FILE_NAME
        content = bytearray(path.read_bytes())
        content[60_000:64_000] = b"\xa5" * 4000
        path.write_bytes(content)
        with desk(tmp_path, "t") as after:
            sent = after.send_all()
        assert 0 < len(sent) < kept
        assert len({*ids(sent)}) == len(sent)
        assert "was damaged" in caplog.text
        assert path.with_name("outbox.db.damaged").read_bytes() == content
        with desk(tmp_path, "u") as again:
            assert again.outbox.settle(5)
            assert again.send_all() == []

    @pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 9000])
    def test_any_other_file_under_its_name_is_set_aside(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / event_store.FILE_NAME).write_bytes(content)
        with desk(tmp_path) as front:
            front.happens()
            assert front.outbox.settle(5)
            assert front.outbox.durable


def test_a_refused_event_holds_up_no_others_and_waits_for_the_next_connection(tmp_path: Path) -> None:
    with desk(tmp_path, size_bytes=1024 * 1024) as front:
        for _ in range(150):
            front.happens()
        assert front.outbox.settle(10)

        def refuse() -> bool:
            for event_id in front.ready():
                if event_id not in ("s-120", "s-150"):
                    front.outbox.set_aside(event_id)
            return front.ready() == ["s-120", "s-150"]

        eventually(refuse)
        front.outbox.remove("s-120")
        assert len(front.outbox) == 149
        front.outbox.rewind()
        expected = [f"s-{n}" for n in range(1, 151) if n != 120]
        assert ids(front.send_all()) == expected


class Journey:
    """What a sink and a broker do with an outbox over several sessions. Acknowledgements come at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sent: list[str] = []
        self.told = 0
        self.happened = 0
        self.sessions = 0
        self.begin(0)

    def begin(self, _: int) -> None:
        if self.sessions:
            self.front.outbox.close(5)
        self.sessions += 1
        self.front = Desk(self.directory, str(self.sessions))
        self.front.outbox.start()

    def put(self, amount: int) -> None:
        for _ in range(amount):
            self.front.happens(CameraEnded(f"{self.happened:06d}" + "x" * 500))
            self.happened += 1

    def send(self, most: int) -> None:
        for waiting in self.front.outbox.waiting()[:most]:
            content = json.loads(waiting.content)
            self.told += content.get("count", 0)
            if content["type"] == "camera_ended":
                self.sent.append(content["reason"][:6])
            self.front.outbox.remove(waiting.event_id)

    def refuse(self, most: int) -> None:
        for waiting in self.front.outbox.waiting()[:most]:
            self.front.outbox.set_aside(waiting.event_id)

    def rewind(self, _: int) -> None:
        self.front.outbox.rewind()

    def end(self) -> None:
        self.rewind(0)

        def is_empty() -> bool:
            self.send(1000)
            return self.front.outbox.settle(5) and len(self.front.outbox) == 0 and self.told == self.given_up

        eventually(is_empty, 20)
        self.front.outbox.close(5)

    @property
    def given_up(self) -> int:
        return self.happened - len(self.sent)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "send", "rewind", "refuse", "begin"]), st.integers(1, 40)), max_size=14
    )
)
def test_everything_is_sent_once_and_in_order_or_told_as_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    journey = Journey(tmp_path_factory.mktemp("outbox"))
    for step, amount in steps:
        getattr(journey, step)(amount)
    journey.end()

    assert len({*journey.sent}) == len(journey.sent)
    if "refuse" not in [step for step, _ in steps]:
        assert journey.sent == sorted(journey.sent)


def test_many_threads_may_put_while_one_sends(tmp_path: Path) -> None:
    with desk(tmp_path, size_bytes=1024 * 1024) as front:
        writers = [threading.Thread(target=lambda: [front.happens() for _ in range(200)]) for _ in range(3)]
        for writer in writers:
            writer.start()
        sent = front.send_all()
        for writer in writers:
            writer.join()
        sent += front.send_all()
    numbers = [int(str(event["id"]).partition("-")[2]) for event in sent]
    assert sorted(numbers) == list(range(1, 601))
    assert numbers == sorted(numbers)


def test_an_error_that_nobody_foresaw_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_module, "RETRY_FIRST_S", 0.05)
    errors = [OSError(errno.EIO, "Input/output error"), ValueError("surprise")]
    after = EventStore.after

    def failing(self: EventStore, *args: int) -> list[event_store.Kept]:
        if errors:
            raise errors.pop()
        return after(self, *args)

    monkeypatch.setattr(EventStore, "after", failing)
    with desk(tmp_path) as front:
        front.happens()
        eventually(lambda: not errors and front.outbox.durable)
        eventually(lambda: front.ready() == ["s-1"])
    assert "surprise" in caplog.text


def test_an_account_of_a_loss_that_is_lost_itself_is_not_forgotten(tmp_path: Path) -> None:
    with desk(tmp_path) as front:
        front.happens(EventsLost(7, 1, 2))
        for _ in range(UNWRITTEN_MOST):
            front.happens()
        assert front.outbox.settle(20)
        others = front.outbox.lost - 1
        told: list[dict[str, object]] = []

        def is_told() -> bool:
            told.extend(event for event in front.send_all() if event["type"] == "events_lost")
            return bool(told)

        eventually(is_told)
    assert [(event["count"], event["since_us"]) for event in told] == [(others + 7, 0)]

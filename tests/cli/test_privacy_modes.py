"""The modes of privacy in `edge-pose run` as a process: what leaves it, to the broker, to the hub and to the disk."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest

from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log import disclosure
from tests.cli.command import edge_pose, run_settings
from tests.cli.conftest import PREFIX, Configure, Daemon, landmarks
from tests.cli.test_commands import information, refused, tell, told
from tests.cli.test_reload import reload
from tests.conftest import CLIP, eventually
from tests.mqtt.test_sink import Subscriber, subscriber
from tests.rerun_log.reading import received, rows
from tests.rerun_log.seen import in_file, magics, on_the_wire, shown, unpacked
from tests.servers import Server, relay, rerun_server

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

POINTS = "/camera/front/video/pose/points"
VIDEO = "/camera/front/video"
EVERY_PICTURE = {"full": {"H.264"}, "mask": set(), "landmarks": set()}


@dataclass(frozen=True)
class Left:
    """What has left a daemon that has seen the clip, by place: "the disk", "the hub" or "the wire" to it.

    chunks: whole ones. raw: the bytes as they are, with packing and protocols. told: all that the broker was told.
    """

    chunks: dict[str, list[pa.RecordBatch]]
    raw: dict[str, bytes]
    told: list[bytes]
    recording: Path
    log: str


def leave(mode: Mode, broker: Server, directory: Path) -> Left:
    """Run a daemon in this mode over the clip, with a broker, a hub and a recording."""
    records, got = directory / "records", directory / "got"
    with rerun_server() as hub, relay(hub.port, listens=True) as wire, subscriber(broker.port) as outside:
        settings = run_settings(
            device="hall",
            mqtt__url=broker.url,
            mqtt__home_assistant=True,
            rerun__url=f"rerun+http://127.0.0.1:{wire.port}/proxy",
            rerun__record_dir=records,
            privacy__mode=mode,
        )
        run = edge_pose("run", *settings)
        assert run.returncode == 0, run.stderr
        received(hub.url, got, expect={POINTS: 60})
        eventually(lambda: b"stopped" in outside.payloads(f"{PREFIX}/state"))
        sent = wire.heard
        told = [bytes(message.payload) for message in outside.messages]
    (recording,) = records.glob("*.rrd")
    on_wire = [batch for connection in sent for batch in on_the_wire(connection)]
    return Left(
        {"the disk": in_file(recording), "the hub": in_file(got), "the wire": on_wire},
        {"the disk": recording.read_bytes(), "the hub": got.read_bytes(), "the wire": b"".join(sent)},
        told,
        recording,
        run.stderr,
    )


@pytest.mark.parametrize("mode", get_args(Mode))
def test_nothing_leaves_that_shows_more_than_the_mode_allows(mode: Mode, broker: Server, tmp_path: Path) -> None:
    """Also the control: in mode full the same search finds the pictures."""
    left = leave(mode, broker, tmp_path)
    assert rows(left.recording)[POINTS] == list(range(60))
    for place, chunks in left.chunks.items():
        assert max(map(shown, chunks)) is most_shown(mode), place
        assert any("Points2D:positions" in chunk.schema.names for chunk in chunks), place
        assert magics(unpacked(chunks)) == EVERY_PICTURE[mode], place
        assert magics(left.raw[place]) <= EVERY_PICTURE[mode], "as it is, in which packing may hide them"
    assert len(left.chunks["the wire"]) >= len(left.chunks["the disk"])
    assert len(left.told) > 30
    assert not magics(b"".join(left.told))
    assert disclosure.most_shown(left.recording) is most_shown(mode)
    assert "private" not in left.log, "nothing was made that had to be refused"


def test_a_reload_to_a_stricter_mode_takes_pictures_snapshots_and_core_dumps_away(
    tmp_path: Path,
    outside: Subscriber,
    configure: Configure,
    start: Callable[..., Daemon],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records, crash = tmp_path / "records", tmp_path / "crash"
    crash.mkdir()
    monkeypatch.chdir(crash)

    def become(mode: str, source: Path = CLIP) -> None:
        configure(
            source=source,
            mqtt="landmarks_hz = 10\nhome_assistant = true",
            more=f'[rerun]\nrecord_dir = "{records}"\n[privacy]\nmode = "{mode}"\n',
        )

    become("full")
    daemon = start()
    assert told(outside, "snapshot")["width_px"] == 640
    pictures = f"{PREFIX}/camera/front/snapshot"
    assert magics(outside.payloads(pictures)[0]) == {"JPEG"}

    text = tmp_path / "text.mp4"
    text.write_text("no film")
    become("landmarks", source=text)
    reload(daemon, f"not reloaded, the configuration in force stays: {text}: can't be read as video")
    eventually(lambda: tell(outside, "snapshot").ok, 30)  # the camera that goes on has no picture at first
    eventually(lambda: information(outside)["privacy"] == "full")
    eventually(lambda: VIDEO in rows(max(records.glob("*.rrd"))), 30)

    become("landmarks")
    reload(daemon, "reloaded: rerun, privacy, pose of front\n")
    assert daemon.log.count(f"privacy.mode is landmarks now: what was recorded before stays in {records}") == 2
    taken = len(outside.payloads(pictures))
    code, text = refused(outside, "snapshot")
    assert code == "invalid"
    assert text.startswith("command: privacy.mode = landmarks: no picture leaves this device")
    eventually(lambda: information(outside)["privacy"] == "landmarks")
    assert "snapshot" not in information(outside)["commands"]
    seen = len(landmarks(outside))
    eventually(lambda: len(landmarks(outside)) > seen + 10, 30)
    newest = lambda: max(records.glob("*.rrd"))  # noqa: E731 - it is asked again and again
    eventually(lambda: disclosure.most_shown(newest()) is Shows.NUMBERS and POINTS in rows(newest()))
    *before, after = sorted(records.glob("*.rrd"))

    # The watchdog's way to end it. What it leaves is a traceback, and no core.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_CORE, (hard, hard))
    daemon.process.send_signal(signal.SIGABRT)
    assert daemon.process.wait(timeout=20) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.log
    assert not list(crash.iterdir())
    assert max(map(shown, in_file(after))) is disclosure.most_shown(after) is Shows.NUMBERS
    for path in before:
        assert max(map(shown, in_file(path))) <= disclosure.most_shown(path)
    assert disclosure.most_shown(before[-1]) is Shows.PICTURES
    assert len(outside.payloads(pictures)) == taken
    assert json.loads(outside.payloads(f"{PREFIX}/info")[-1])["segmentation"] is False

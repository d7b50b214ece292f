"""The modes of privacy in `edge-pose run` as a process: what leaves it, to the broker, to the hub and to the disk."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log import disclosure
from tests.cli.command import edge_pose, run_settings
from tests.cli.conftest import PREFIX, Configure, Daemon, landmarks
from tests.cli.test_commands import information, refused, told
from tests.cli.test_reload import reload
from tests.conftest import eventually
from tests.mqtt.test_sink import Subscriber, subscriber
from tests.rerun_log.reading import received, rows
from tests.rerun_log.seen import in_file, magics, on_the_wire, shown, unpacked
from tests.servers import Server, relay, rerun_server

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

POINTS = "/camera/front/video/pose/points"
EVERY_PICTURE = {"full": {"H.264"}, "mask": set(), "landmarks": set()}


@pytest.mark.parametrize("mode", get_args(Mode))
def test_nothing_leaves_that_shows_more_than_the_mode_allows(mode: Mode, broker: Server, tmp_path: Path) -> None:
    """Also the control: in mode full the same search finds the pictures."""
    records, got = tmp_path / "records", tmp_path / "got"
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
        assert rows(next(records.glob("*.rrd")))[POINTS] == list(range(60))
        received(hub.url, got, expect={POINTS: 60})
        eventually(lambda: b"stopped" in outside.payloads(f"{PREFIX}/state"))
        sent = [bytes(heard) for heard in wire.heard]
        said = b"".join(bytes(message.payload) for message in outside.messages)
    (recorded,) = records.glob("*.rrd")
    places = {
        "the disk": in_file(recorded),
        "the hub": in_file(got),
        "the wire": [batch for connection in sent for batch in on_the_wire(connection)],
    }
    assert {place: max(map(shown, chunks)) for place, chunks in places.items()} == dict.fromkeys(
        places, most_shown(mode)
    )
    assert len(places["the wire"]) >= len(places["the disk"])
    assert all(any("Points2D:positions" in chunk.schema.names for chunk in chunks) for chunks in places.values())
    for chunks in places.values():
        assert magics(unpacked(chunks)) == EVERY_PICTURE[mode]
    for content in (recorded.read_bytes(), got.read_bytes(), b"".join(sent)):
        assert magics(content) <= EVERY_PICTURE[mode], "as it is, in which packing may hide them"
    assert len(landmarks(outside)) > 30
    assert not magics(said)
    assert disclosure.most_shown(recorded) is most_shown(mode)
    assert "private" not in run.stderr, "nothing was made that had to be refused"


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

    def become(mode: str) -> None:
        configure(
            mqtt="landmarks_hz = 10\nhome_assistant = true",
            more=f'[rerun]\nrecord_dir = "{records}"\n[privacy]\nmode = "{mode}"\n',
        )

    become("full")
    daemon = start()
    assert told(outside, "snapshot")["width_px"] == 640
    pictures = f"{PREFIX}/camera/front/snapshot"
    assert magics(outside.payloads(pictures)[0]) == {"JPEG"}

    become("landmarks")
    reload(daemon, "reloaded: rerun, privacy, pose of front\n")
    assert daemon.log.count(f"what was recorded before stays in {records}") == 1
    code, text = refused(outside, "snapshot")
    assert code == "invalid"
    assert text.startswith("command: privacy.mode = landmarks: no picture leaves this device")
    eventually(lambda: information(outside)["privacy"] == "landmarks")
    assert "snapshot" not in information(outside)["commands"]
    seen = len(landmarks(outside))
    eventually(lambda: len(landmarks(outside)) > seen + 10, 30)
    before, after = sorted(records.glob("*.rrd"))
    eventually(lambda: rows(after).get(POINTS))

    # The watchdog's way to end it. What it leaves is a traceback, and no core.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_CORE, (hard, hard))
    daemon.process.send_signal(signal.SIGABRT)
    assert daemon.process.wait(timeout=20) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.log
    assert not list(crash.iterdir())
    assert [max(map(shown, in_file(path))) for path in (before, after)] == [Shows.PICTURES, Shows.NUMBERS]
    assert len(outside.payloads(pictures)) == 1
    assert json.loads(outside.payloads(f"{PREFIX}/info")[-1])["segmentation"] is False

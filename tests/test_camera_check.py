"""Cameras as doctor tries them: broken ones, each with its remedy. Those with a real device: tests/system."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import stat
from pathlib import Path

import cv2
import pytest

from edge import camera_check
from edge.camera_check import check, device_of
from edge.cameras.children import v4l2
from edge.cameras.driver import Driver
from edge.config import CameraConfig
from edge.device.holders import holders
from edge.errors import CameraLost, ExitCode
from edge.findings import Finding, Verdict
from tests.cameras.test_driver import ACTING, acting
from tests.conftest import CLIP, eventually
from tests.device.test_holders import holding
from tests.servers import free_port


def found(save: Path | None = None, **camera: object) -> Finding:
    (finding,) = check("front", CameraConfig.model_validate(camera), save)
    return finding


def test_a_live_camera_is_told_with_its_rate() -> None:
    finding = found(source="synthetic", fps=20)
    assert (finding.verdict, finding.remedy) == (Verdict.OK, "")
    assert finding.detail in {f"synthetic, 640x480 at {rate}/s" for rate in (19, 20, 21)}


def test_a_driver_that_can_not_open_its_camera_is_given_the_time_to_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.camera_check.TIMEOUT_S", 0.2)
    monkeypatch.setattr("edge.cameras.driver.OPEN_TIMEOUT_S", 1.0)
    with pytest.raises(CameraLost, match=r"not open after 1 s"):
        camera_check._seen(acting("hang"))


def test_a_film_has_no_rate_of_its_own() -> None:
    assert found(source=str(CLIP)).detail == "file, 640x480"


def test_what_is_told_is_what_is_left_of_the_picture() -> None:
    assert found(source=str(CLIP), rotate_deg=90, crop=[0, 0, 0.5, 1]).detail == "file, 240x640"


@pytest.mark.parametrize(
    ("camera", "detail", "remedy", "code"),
    [
        (
            {"source": "v4l2:/dev/video-none"},
            "v4l2:/dev/video-none: no such device; is it plugged in? edge-pose doctor lists what there is",
            "see camera.front.source; run would wait for it",
            ExitCode.FAILED,
        ),
        (
            {"source": "v4l2:/dev/null"},
            "v4l2:/dev/null: /dev/null is no video device; edge-pose doctor lists what there is",
            "see camera.front.source",
            ExitCode.NO_INPUT,
        ),
        (
            {"source": f"v4l2:{CLIP}"},
            f"v4l2:{CLIP}: {CLIP} is no video device; edge-pose doctor lists what there is",
            "see camera.front.source",
            ExitCode.NO_INPUT,
        ),
        (
            {"source": "/srv/none.mp4"},
            "/srv/none.mp4: can't be read as video (No such file or directory); give a file that ffplay shows",
            "see camera.front.source",
            ExitCode.NO_INPUT,
        ),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(
    camera: dict[str, object], detail: str, remedy: str, code: ExitCode
) -> None:
    assert found(**camera) == Finding("camera.front", Verdict.FAILED, detail, remedy, code)


def test_a_stream_that_nobody_serves_is_waited_for() -> None:
    port = free_port()
    finding = found(source=f"rtsp://anna:geheim@127.0.0.1:{port}/1")
    assert finding.detail == f"rtsp://***@127.0.0.1:{port}/1: Connection refused"
    assert finding.remedy == "see camera.front.source; run would wait for it"
    assert finding.exit_code is ExitCode.FAILED


def test_without_picamera2_it_is_told_what_to_install() -> None:
    finding = found(source="picamera2")
    assert (finding.verdict, finding.exit_code) == (Verdict.FAILED, ExitCode.NO_INPUT)
    assert "the module picamera2 is missing" in finding.detail
    assert "apt install python3-picamera2" in finding.detail


@pytest.mark.parametrize(
    ("source", "device"),
    [
        ("v4l2:0", "/dev/video0"),
        ("v4l2:/dev/v4l/by-id/usb-Cam", "/dev/v4l/by-id/usb-Cam"),
        ("picamera2:0", None),
        ("rtsp://door/1", None),
    ],
)
def test_the_device_behind_a_source(source: str, device: str | None) -> None:
    assert device_of(source) == (None if device is None else Path(device))


def busy(device: Path) -> Finding:
    camera = CameraConfig(source=f"v4l2:{device}")
    return camera_check._trouble("camera.front", camera, CameraLost(f"v4l2:{device}: {v4l2._busy()}"), "see")


def test_who_holds_a_device_is_told(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch()
    with holding(device) as other:
        eventually(lambda: holders(device))
        finding = busy(device)
        assert finding.verdict is Verdict.FAILED
        assert re.fullmatch(rf"v4l2:{device}: another program uses it: \S+ \(pid {other.pid}\)", finding.detail)
        assert finding.remedy == "end that program; run would wait for it"
        other.communicate()
    assert "another program uses it: " in busy(device).detail, "by then it has ended"


def test_a_device_that_our_own_service_holds_is_no_failure(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch()
    with holding(device, "edge_pose_children") as ours:
        eventually(lambda: holders(device))
        finding = busy(device)
        assert finding.verdict is Verdict.WARNING
        assert finding.detail == f"v4l2:{device}: another program uses it: edge-pose (pid {ours.pid})"
        assert finding.remedy == "stop the service to try the camera by itself"
        ours.communicate()


def test_who_may_not_open_a_device_is_told_its_group(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch(0o660)
    error = CameraLost(str(v4l2._unopened(str(device), PermissionError(errno.EACCES, "Permission denied"))))

    def remedy() -> str:
        return camera_check._trouble("camera.front", CameraConfig(source=f"v4l2:{device}"), error, "see").remedy

    assert remedy() == f"udev should give {device} to a group such as video, with mode 660"
    if os.geteuid() == 0:
        os.chown(device, 0, grp.getgrnam("video").gr_gid)
        user, service = pwd.getpwuid(0).pw_name, "a service wants SupplementaryGroups=video"
        assert remedy() == f"sudo usermod -aG video {user}, then log in anew; {service}"


def test_its_picture_is_kept_for_this_users_eyes(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "front.jpg").write_text("an old one")
    finding = found(tmp_path / "new", source=str(CLIP), rotate_deg=90)
    picture = tmp_path / "new" / "front.jpg"
    assert finding.detail == f"file, 480x640; its picture, for this user's eyes only: {picture}"
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    read = cv2.imread(str(picture))
    assert read is not None
    assert read.shape == (640, 480, 3)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["front.jpg"]


def test_a_picture_that_can_not_be_kept_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, second = check("front", CameraConfig(source=str(CLIP)), tmp_path / "file" / "below")
    assert first.verdict is Verdict.FAILED
    assert first.detail.startswith(f"{tmp_path}/file/below/front.jpg: can't be written: ")
    assert second.verdict is Verdict.OK


def test_what_else_is_plugged_in_is_told_with_what_to_write() -> None:
    first, second = camera_check.others(None, {"v4l2": ACTING, "picamera2": ACTING})
    assert first == second
    assert first == Finding(
        "cameras",
        Verdict.OK,
        'not configured: source = "acting:1" (Actor: RGB 64x48 30/s, RGB 320x240 30/s, RGB 800x600 30/s, '
        "RGB 1280x720 30/s, … (5 in all))",
    )


def test_one_that_can_not_be_opened_is_told_too() -> None:
    trouble = camera_check._other({"source": "v4l2:/dev/video0", "name": "", "modes": [], "trouble": "no permission"})
    assert (trouble.verdict, trouble.detail) == (Verdict.OFF, "v4l2:/dev/video0: no permission")


def test_where_there_is_none_that_is_told() -> None:
    none = Driver("nothing", directory=Path(__file__).parent / "cameras")
    (finding,) = camera_check.others(None, {"v4l2": none, "picamera2": none})
    assert finding == Finding("cameras", Verdict.OFF, "no camera is plugged in")

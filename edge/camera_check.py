"""Cameras, tried one by one: what they are, what they give, and what else is plugged in."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge import app, jpeg
from edge.cameras.children.v4l2 import BUSY, NO_PERMISSION, device_path
from edge.cameras.driver import DRIVERS, Driver, DriverSource, listed
from edge.cameras.oriented import Oriented
from edge.config import CameraConfig, Config
from edge.device.holders import hidden_children, holders
from edge.errors import CameraError, CameraLost
from edge.findings import Finding, Verdict, failed
from edge.interfaces import EndOfStream, FrameSource
from edge.pacing import Deadline
from edge.vision.frame import Frame

TIMEOUT_S = 15.0
_MEASURED_S = 1.5
_FRAMES_FOR_A_RATE = 3
_TOO_SLOW = 0.8
_MODES_SHOWN = 4
_LISTED_S = 10.0
_SAVED_QUALITY = 90


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a camera gave. fps, age_ms: None of what is no live camera, or gave too few frames."""

    frame: Frame
    fps: float | None
    age_ms: float | None


def check(name: str, camera: CameraConfig, save: Path | None = None) -> Iterator[Finding]:
    """How a configured camera is. save: the directory that gets its picture, as NAME.jpg."""
    part, remedy = f"camera.{name}", f"see camera.{name}.source"
    source = app.frame_source(name, camera)
    try:
        seen = _seen(source)
    except CameraError as error:
        yield _trouble(part, camera, error, remedy)
        return
    if seen is None:
        yield failed(part, f"no picture in {TIMEOUT_S:g} s", remedy)
        return
    found = _finding(part, camera, _driver(source), seen)
    if save is not None:
        path = save / f"{name}.jpg"
        try:
            _write(path, jpeg.encode(seen.frame.for_people, _SAVED_QUALITY))
        except OSError as error:
            yield failed(part, f"{path}: can't be written: {error.strerror}", "give --save another directory")
        else:
            found = replace(found, detail=f"{found.detail}; its picture, for this user's eyes only: {path}")
    yield found


def _seen(source: FrameSource) -> _Seen | None:
    """None: no picture has come. Raises CameraError."""
    frame: Frame | None = None
    times_ns: list[int] = []
    ages_ns: list[int] = []
    with contextlib.suppress(EndOfStream), source:
        deadline = Deadline(TIMEOUT_S)
        while frame is None and deadline.left_s():
            frame = source.read(0.5)
            if source.opening:  # which the driver ends by itself, and says why
                deadline = Deadline(TIMEOUT_S)
        deadline = Deadline(_MEASURED_S)
        while source.live and frame is not None and deadline.left_s():
            if (more := source.read(0.1)) is not None:
                frame = more
                times_ns.append(more.monotonic_ns)
                ages_ns.append(time.monotonic_ns() - more.monotonic_ns)
    if frame is None or len(times_ns) < _FRAMES_FOR_A_RATE:
        return None if frame is None else _Seen(frame, None, None)
    fps = (len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0])
    return _Seen(frame, fps, sorted(ages_ns)[len(ages_ns) // 2] / 1e6)


def _driver(source: FrameSource) -> DriverSource | None:
    inner = source.source if isinstance(source, Oriented) else source
    return inner if isinstance(inner, DriverSource) else None


def _finding(part: str, camera: CameraConfig, driver: DriverSource | None, seen: _Seen) -> Finding:
    facts = [camera.kind]
    complaints, remedies = [], []
    if driver is not None:
        facts.append(driver.told)
        given = driver.size_px
        if camera.kind != "gstreamer" and given not in (None, (camera.width_px, camera.height_px)):
            complaints.append(f"it has no {camera.width_px}x{camera.height_px}")
            remedies.append(f"set {part}.width_px and height_px to a size that it has")
    width_px, height_px = seen.frame.rgb.width_px, seen.frame.rgb.height_px
    if driver is None or driver.size_px != (width_px, height_px):  # else its driver has said so
        facts.append(f"{width_px}x{height_px}" + ("" if seen.fps is None else f" at {seen.fps:.0f}/s"))
    elif seen.fps is not None:
        facts.append(f"gives {seen.fps:.0f}/s")
    if seen.age_ms is not None and camera.kind != "synthetic":
        facts.append(f"{seen.age_ms:.0f} ms old when they are here")
    if driver is not None and seen.fps is not None and seen.fps < _TOO_SLOW * camera.fps:
        complaints.append(f"fewer than the {camera.fps:g}/s that are wanted")
        remedies.append(
            f"set {part}.fps to what it reaches, or pixel_format, a smaller size, a shorter exposure, more light"
        )
    verdict = Verdict.WARNING if complaints else Verdict.OK
    return Finding(part, verdict, "; ".join([", ".join(facts), *complaints]), "; ".join(remedies))


def _trouble(part: str, camera: CameraConfig, error: CameraError, remedy: str) -> Finding:
    detail = str(error)
    device = device_of(camera.source)
    if device is not None and (at := detail.find(BUSY)) >= 0:
        return _busy(part, detail[:at] + BUSY, device)
    if device is not None and NO_PERMISSION in detail:
        remedy = _group_remedy(device)
    elif isinstance(error, CameraLost):
        return failed(part, detail, f"{remedy}; run would wait for it")
    return failed(part, detail, remedy, error.exit_code)


def _busy(part: str, detail: str, device: Path) -> Finding:
    """Somebody uses it: who, as far as this user may see. That it is our own service is no failure."""
    remedy = "stop the service to try the camera by itself"
    who = holders(device)
    told = ", ".join(map(str, who))
    if who and all(holder.ours for holder in who):
        return Finding(part, Verdict.WARNING, f"{detail}: {told}", remedy)
    if not who and (perhaps := hidden_children()):
        told = f"perhaps {', '.join(map(str, perhaps))}, only root can see"
        return Finding(part, Verdict.WARNING, f"{detail}: {told}", f"{remedy}, or run as root")
    told = told or ("nobody is seen" if os.geteuid() == 0 else "only root can see which")
    return failed(part, f"{detail}: {told}", "end that program; run would wait for it")


def device_of(source: str) -> Path | None:
    """The device behind v4l2:, whether it is there or not."""
    kind, _, place = source.partition(":")
    return Path(device_path(place)) if kind == "v4l2" else None


def _group_remedy(device: Path) -> str:
    """What lets this user open it."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    try:
        group = grp.getgrgid(device.stat().st_gid)
    except (OSError, KeyError):
        return f"let {user} open {device}"
    if user in group.gr_mem and group.gr_gid not in os.getgroups():
        return f"{user} is in group {group.gr_name} since this session began: log in anew, or restart the service"
    if group.gr_gid in (0, *os.getgroups()):
        return f"udev should give {device} to a group such as video, with mode 660"
    for_a_service = f"a service wants SupplementaryGroups={group.gr_name}"
    return f"sudo usermod -aG {group.gr_name} {user}, then log in anew; {for_a_service}"


def _write(path: Path, content: bytes) -> None:
    """In the place of one that is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    partial.rename(path)


def others(config: Config | None, drivers: Mapping[str, Driver] = DRIVERS) -> Iterator[Finding]:
    """Cameras that are plugged in and not configured, each with what to write for it; or that there are none."""
    cameras = config.camera.values() if config is not None else ()
    known = {os.path.realpath(device) for camera in cameras if (device := device_of(camera.source)) is not None}
    has_picamera = any(camera.kind == "picamera2" for camera in cameras)
    found = 0
    for kind in ("picamera2", "v4l2"):
        if kind == "picamera2" and has_picamera:
            continue  # which of them is which, only the driver knows
        with contextlib.suppress(CameraLost):  # there is no such driver here
            for entry in listed(drivers[kind], _LISTED_S):
                if os.path.realpath(entry.get("path", "")) not in known:
                    found += 1
                    yield _other(entry)
    if not found:
        yield Finding("cameras", Verdict.OFF, f"no {'other ' if config else ''}camera is plugged in")


def _other(entry: Mapping[str, Any]) -> Finding:
    source, trouble = entry["source"], entry.get("trouble", "")
    if trouble:
        return Finding("cameras", Verdict.OFF, f"{' '.join(filter(None, [source, entry['name']]))}: {trouble}")
    return Finding(
        "cameras", Verdict.OK, f'not configured: source = "{source}" ({entry["name"]}: {_modes(entry["modes"])})'
    )


def _modes(modes: Sequence[str]) -> str:
    """A few of them, from small to large."""
    if len(modes) <= _MODES_SHOWN:
        return ", ".join(modes) or "it tells no modes"
    step = (len(modes) - 1) / (_MODES_SHOWN - 1)
    return ", ".join(modes[round(at * step)] for at in range(_MODES_SHOWN)) + f", … ({len(modes)} in all)"

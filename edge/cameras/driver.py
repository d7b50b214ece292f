"""A camera whose driver runs in a process of its own, which can be ended whatever the driver does.

    driver --copy--> slot of shared memory --convert--> the Frame's own memory
    |<---- the child: children/NAME.py --->|<------ DriverSource ------>|

A call into a driver that never returns can't be cut off inside a process: it keeps its thread, its descriptors and
often the interpreter. A process can be killed. The price is one copy of the picture: 0.1 ms of a 720p one in YUYV.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import logging
import mmap
import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.addresses import without_credentials
from edge.cameras import children
from edge.cameras.children.outlet import HEAD, Plane
from edge.cameras.pixels import ToRgb, UnreadablePictureError, for_people
from edge.clocks import CaptureClock, Clock, Instant
from edge.errors import CameraLost, CameraUnusable
from edge.interfaces import EndOfStream
from edge.logs import FaultLog, of_camera, printable
from edge.pacing import Deadline
from edge.vision.frame import Frame, Picture, VideoCodec, VideoPacket
from edge.vision.geometry import UPRIGHT, Turn

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 20.0
"""For a driver to be loaded and its camera opened: picamera2 on a slow board takes some seconds."""

_TO_CLOSE_S = 0.8
_TO_DIE_S = 0.7
"""For a driver to let go of its camera, and for its killed process to be gone. Together less than a stop may take."""

_LEFT_BEHIND_MOST = 3
"""So many processes that not even SIGKILL ends are waited for before no more are started."""

_LARGEST_BYTES = 256_000_000
_MOST_SHARED_BYTES = 1 << 30
"""Of a message, and of the shared memory, whose slots hold 7680x4320 of four bytes each: more is no picture."""

_REMEMBERED = 8
"""So many lines of a driver, so that one which it repeats is told once."""

_NONSENSE = "its driver's process talks nonsense"

_STAMPS = 120
"""So many frames' times are remembered, for packets that come later: an encoder lags by a few."""

SYSTEM_PYTHON = "/usr/bin/python3"

# The package goes by another name, so that a Python which has none of ours finds its modules and nothing else.
_BOOT = """
import runpy, sys, types
sys.path = [place for place in sys.path if place]
package = types.ModuleType("edge_pose_children")
package.__path__ = sys.argv[2:]
sys.modules[package.__name__] = package
runpy.run_module(package.__name__ + "." + sys.argv[1], run_name="__main__", alter_sys=True)
"""


_CHILDREN = Path(children.__file__).parent


@dataclass(frozen=True, slots=True)
class Driver:
    """A child's program. module: of edge.cameras.children, or of another directory. libraries: what it imports, by
    which the Python is chosen that runs it: ours where that has all of them, else the system's."""

    module: str
    libraries: tuple[str, ...] = ()
    directory: Path = _CHILDREN

    def command(self) -> list[str]:
        ours = all(importlib.util.find_spec(library) is not None for library in self.libraries)
        python = sys.executable if ours or not Path(SYSTEM_PYTHON).exists() else SYSTEM_PYTHON
        return [python, "-c", _BOOT, self.module, *map(str, dict.fromkeys([self.directory, _CHILDREN]))]

    def environment(self) -> dict[str, str]:
        """What a driver has to know: nothing of our configuration, and nothing that is for our Python. Not the one that
        native code sees either, where MediaPipe's points to a proxy that is none."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_POSE", "PYTHON"))}


DRIVERS: Mapping[str, Driver] = {
    "picamera2": Driver("picamera", ("picamera2", "libcamera")),
    "v4l2": Driver("v4l2"),
    "gstreamer": Driver("gstreamer", ("gi",)),
}
"""The program behind each kind of source."""


@dataclass(frozen=True, slots=True)
class Message:
    kind: str
    header: Mapping[str, Any]
    payload: bytes


class ChildEndedError(Exception):
    """The child's process has gone without a word; the text says how."""


class Child:
    """A running child, and what it says."""

    def __init__(self, driver: Driver, request: Mapping[str, Any]) -> None:
        """Start it. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            # It ends with us by its own wish, see outlet.py.
            self._process = subprocess.Popen(
                driver.command(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=driver.environment(),
                start_new_session=True,  # Ctrl-C is ours, also before it is ready to say so
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self._arrived = bytearray()
        self._descriptors: list[int] = []
        text = json.dumps(dict(request)).encode()
        with contextlib.suppress(OSError):  # what is wrong shows when it is listened to
            self._socket.sendall(HEAD.pack(len(text), 0) + text)

    def hear(self, timeout_s: float) -> Message | None:
        """The next message, or None when none is complete after so long. Raises ChildEndedError."""
        deadline = Deadline(timeout_s)
        while (message := self._complete()) is None:
            if not select.select([self._socket], [], [], deadline.left_s())[0]:
                return None
            try:
                content, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
            except ConnectionError:
                content, descriptors = b"", []
            for descriptor in descriptors:
                if self._descriptors:  # one is all there is to share
                    os.close(descriptor)
                else:
                    self._descriptors.append(descriptor)
            if not content:
                raise ChildEndedError(self._how_it_ended())
            self._arrived += content
        return message

    def give_back(self, slot: int) -> None:
        with contextlib.suppress(OSError):  # its end shows when it is listened to
            self._socket.send(bytes([slot]))

    def memory(self, nbytes: int) -> mmap.mmap:
        """What it shares, after the message that says so. Raises OSError or ValueError where it has shared none."""
        if not self._descriptors:
            raise ValueError("no memory was shared")
        if not 0 < nbytes <= _MOST_SHARED_BYTES:
            raise ValueError(f"{nbytes} bytes are no pictures")
        # Memory that could be taken away would end the one who reads it, by SIGBUS: memfd_create(2), fcntl(2).
        if not fcntl.fcntl(self._descriptors[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise ValueError("it could be taken away")
        return mmap.mmap(self._descriptors[0], nbytes, prot=mmap.PROT_READ)

    def close(self) -> bool:
        """End it, by force where it does not go by itself. False: not even that has ended it, so far."""
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        for patience_s in (_TO_CLOSE_S, _TO_DIE_S):
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
            else:
                return True
        return self.has_gone

    @property
    def has_gone(self) -> bool:
        return self._process.poll() is not None

    def _complete(self) -> Message | None:
        if len(self._arrived) < HEAD.size:
            return None
        text_bytes, payload_bytes = HEAD.unpack_from(self._arrived)
        if text_bytes + payload_bytes > _LARGEST_BYTES:
            raise ChildEndedError(_NONSENSE)
        begin, end = HEAD.size + text_bytes, HEAD.size + text_bytes + payload_bytes
        if len(self._arrived) < end:
            return None
        try:
            header = json.loads(self._arrived[HEAD.size : begin])
            kind = header.pop("type")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ChildEndedError(_NONSENSE) from None
        payload = bytes(self._arrived[begin:end])
        del self._arrived[:end]
        return Message(kind, header, payload)

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_TO_DIE_S)
        except subprocess.TimeoutExpired:
            return "its driver's process hung up"
        how = f"by signal {-status}" if status < 0 else f"with exit code {status}"
        return f"its driver's process ended {how}; its last words are in the log at log_level debug"


class DriverSource:
    """A camera behind a child's driver.

    shown: what it is called in messages, without credentials. request: what the child is asked for, but for "do" and
    "identity"; children/*.py say what each of them knows. waits: it is a file by nature: each frame is waited for, none
    is lost, and it has an end.
    """

    def __init__(
        self,
        camera: str,
        driver: Driver,
        shown: str,
        request: Mapping[str, Any],
        *,
        waits: bool = False,
        on_lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._camera = camera
        self._driver = driver
        self._shown = shown
        self._request = {"do": "stream", "paced": not waits, **request}
        self._waits = waits
        self._log = of_camera(log, camera)
        self._faults = FaultLog(self._log)
        self._stamp_faults = FaultLog(self._log)  # once: a driver that does it does it with every other frame
        self._clock = CaptureClock()
        self._seq = 0
        self._identity = ""
        self.told = ""
        """What it is and what was chosen of what it has, as its driver says; empty before it was open."""
        self.size_px: tuple[int, int] | None = None
        """Width and height of what the driver gave last, for the estimator."""
        self._left_behind: list[Child] = []
        self._child: Child | None = None
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._encodes = False
        self._by_when = Deadline(0.0)
        self._to_rgb = ToRgb()
        self._texts: deque[str] = deque(maxlen=_REMEMBERED)
        self._packets: list[tuple[int, bool, bytes]] = []
        self._stamps: deque[tuple[int, int, int]] = deque(maxlen=_STAMPS)  # the driver's, seq, captured_ns
        self.lost = 0
        """Frames that the camera gave and nobody took in time."""
        self._on_lost = on_lost
        self.turned = UPRIGHT
        """What the camera has done by itself to the frame that was read last: the flips asked for, or nothing."""

    @property
    def live(self) -> bool:
        return not self._waits

    @property
    def opening(self) -> bool:
        return self._memory is None

    def __enter__(self) -> Self:
        """Only starts it: the camera is opened while `read` waits, so that whoever waits can be stopped."""
        self._left_behind = [child for child in self._left_behind if not child.has_gone]
        if len(self._left_behind) >= _LEFT_BEHIND_MOST:
            count = len(self._left_behind)
            raise CameraLost(
                f"{self._shown}: its driver holds {count} processes that can't be ended; reboot the device"
            )
        try:
            self._child = Child(self._driver, {**self._request, "identity": self._identity})
        except OSError as error:
            raise CameraLost(f"{self._shown}: no process for its driver: {error.strerror or error}") from None
        self._by_when = Deadline(OPEN_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._child = self._child, None
        memory, self._memory = self._memory, None
        if memory is not None:
            with contextlib.suppress(BufferError):  # somebody still has a view of it: it goes with that one
                memory.close()
        self._packets.clear()
        self._stamps.clear()
        if child is not None and not child.close():
            self._left_behind.append(child)
            self._log.warning("camera %s: its driver's process can't be ended and is left behind", self._camera)

    def read(self, timeout_s: float) -> Frame | None:
        assert self._child is not None, "read comes after entering"
        deadline = Deadline(timeout_s)
        while True:
            try:
                message = self._child.hear(deadline.left_s())
            except ChildEndedError as error:
                raise CameraLost(f"{self._shown}: {error}") from None
            if message is None:
                self._open_in_time()
                return None
            frame, makes_sense = None, True
            try:
                frame = self._met(message)
            except (LookupError, TypeError, ValueError, ArithmeticError) as error:
                self._log.debug("camera %s: %s", self._camera, _said(repr(error)))
                makes_sense = False
            if not makes_sense:  # not in there, or that error, and with it a view of the memory, would go along
                raise CameraLost(f"{self._shown}: {_NONSENSE}")
            if frame is not None:
                return frame
            if not deadline.left_s():  # a driver that has much to say and no picture holds nobody up
                self._open_in_time()
                return None

    def _open_in_time(self) -> None:
        if self._memory is None and not self._by_when.left_s():
            raise CameraLost(f"{self._shown}: not open after {OPEN_TIMEOUT_S:g} s")

    def _met(self, message: Message) -> Frame | None:
        header = message.header
        match message.kind:
            case "frame":
                return self._frame(header)
            case "packet":
                self._packets.append((header["stamp_ns"], header["keyframe"], message.payload))
                del self._packets[:-_STAMPS]  # of frames that never came
            case "opened":
                self._opened(header)
            case "log":
                self._says(str(header["level"]), _said(header["text"]))
            case "ended":
                if self._waits:
                    raise EndOfStream
                raise CameraLost(f"{self._shown}: the stream has ended")
            case "failed":
                kind = CameraLost if header["lost"] or self._seq else CameraUnusable
                raise kind(f"{self._shown}: {_said(header['text'])}")
        return None

    def _says(self, level: str, text: str) -> None:
        """Into the log, and what it says again and again, with each frame perhaps, once."""
        number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
        self._log.log(logging.DEBUG if text in self._texts else number, "camera %s: %s", self._camera, text)
        self._texts.append(text)

    def _opened(self, header: Mapping[str, Any]) -> None:
        assert self._child is not None
        self._slot_bytes = header["slot_bytes"]
        nbytes = self._slot_bytes * header["slots"]
        try:
            self._memory = self._child.memory(nbytes)
        except (OSError, ValueError) as error:
            raise CameraLost(f"{self._shown}: its driver's process shares no memory: {error}") from None
        self._encodes = bool(header.get("encodes"))
        flips = {side: bool(self._request.get(f"flip_{side}")) for side in ("horizontal", "vertical")}
        self.turned = Turn.of_flips(**flips) if header.get("flipped") else UPRIGHT
        self._identity = header["identity"] or self._identity
        if self._waits:
            self._clock.open()
        told = f"{printable(header['camera'])}, {printable(header['note'])}"
        # Once, and again when it has come back as something else.
        self._log.log(logging.DEBUG if told == self.told else logging.INFO, "camera %s: %s", self._camera, told)
        self.told = told

    def _frame(self, header: Mapping[str, Any]) -> Frame | None:
        assert self._child is not None
        if self._memory is None:
            raise CameraLost(f"{self._shown}: {_NONSENSE}")
        slot, stamp_ns = header["slot"], header["stamp_ns"]
        self.lost += header["lost"]
        self._on_lost(header["lost"])
        planes = [Plane(**plane) for plane in header["planes"]]
        try:
            rgb, video = self._pictures(slot, planes)
        except UnreadablePictureError as error:
            self._faults.failed("camera %s: a picture can't be read, going on: %s", self._camera, str(error))
            return None
        finally:
            self._child.give_back(slot)
        self._faults.worked("camera %s: its pictures can be read again", self._camera)
        self.size_px = planes[0].width_px, planes[0].height_px
        instant = self._instant(stamp_ns, header["clock"])
        seq, self._seq = self._seq, self._seq + 1
        self._stamps.append((stamp_ns, seq, instant.captured_ns))
        return Frame(
            camera=self._camera,
            seq=seq,
            captured_ns=instant.captured_ns,
            monotonic_ns=instant.monotonic_ns,
            rgb=rgb,
            video=video,
            packets=tuple(self._finished()) if self._encodes else None,
        )

    def _pictures(self, slot: int, planes: Sequence[Plane]) -> tuple[Picture, Picture | None]:
        assert self._memory is not None
        memory = memoryview(self._memory)[slot * self._slot_bytes :][: self._slot_bytes]
        rgb = self._to_rgb(memory, planes[0])
        return rgb, for_people(memory, planes[1], self._to_rgb) if len(planes) > 1 else None

    def _instant(self, stamp_ns: int, clock: str) -> Instant:
        match clock:
            case "media":
                return self._clock.media(stamp_ns)
            case "arrival":
                return self._clock.now()
        instant = self._clock.at(stamp_ns, Clock(clock))
        if self._clock.doubted:
            told = "camera %s: its driver's time stamps can't be right, the time of arrival is taken instead"
            self._stamp_faults.failed(told, self._camera)
        return instant

    def _finished(self) -> Iterator[VideoPacket]:
        """Packets whose frame is known by now, with its number and time."""
        newest_ns = self._stamps[-1][0]
        waiting, self._packets = self._packets, []
        for stamp_ns, keyframe, payload in waiting:
            if stamp_ns > newest_ns:
                self._packets.append((stamp_ns, keyframe, payload))
                continue
            # A frame that was not taken in time goes by the number of the one before it.
            _, seq, captured_ns = next(
                (known for known in reversed(self._stamps) if known[0] <= stamp_ns), self._stamps[0]
            )
            yield VideoPacket(seq, captured_ns, VideoCodec.H264, keyframe, payload)


def _said(text: str) -> str:
    """What a child says, fit for a line of the log: a driver may quote the address that it was given."""
    return without_credentials(printable(text))


def listed(driver: Driver, timeout_s: float = OPEN_TIMEOUT_S) -> list[dict[str, Any]]:
    """What cameras a driver finds: "source", "name", "identity", "modes", "trouble". Raises CameraLost."""
    try:
        child = Child(driver, {"do": "list"})
    except OSError as error:
        raise CameraLost(f"no process for the driver {driver.module}: {error.strerror or error}") from None
    deadline = Deadline(timeout_s)
    try:
        while (message := child.hear(deadline.left_s())) is not None:
            if message.kind == "cameras":
                return list(message.header["cameras"])
            if message.kind == "failed":
                raise CameraLost(_said(message.header["text"]))
    except ChildEndedError as error:
        raise CameraLost(str(error)) from None
    finally:
        child.close()
    raise CameraLost(f"the driver {driver.module} does not answer within {timeout_s:g} s")

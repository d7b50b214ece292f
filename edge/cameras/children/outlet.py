"""The child's end of a camera: what to do comes in, pictures go out through shared memory.

Both ends share a stream socket. The daemon's first message is the request; after it each byte gives a slot of the
shared memory back. The child's messages are a header of JSON behind two lengths, followed by what goes in no slot:

    uint32 length of the header | uint32 length of the payload | header | payload        (both big-endian)

The header's "type" is one of those that the methods of `Outlet` send.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEAD = struct.Struct(">II")
SLOTS = 4
"""One is being filled, one is being read, and two wait."""

_F_ADD_SEALS, _F_SEAL_SHRINK = 1033, 2  # fcntl(2); Python has their names since 3.9
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # prctl(2)


class Failed(Exception):
    """The camera gives nothing more. lost: another try may help. remedy: what somebody can do, appended to the line."""

    def __init__(self, text: str, lost: bool = True, remedy: str = "") -> None:  # noqa: FBT001, FBT002 - by name
        super().__init__("; ".join(filter(None, [text, remedy])))
        self.lost = lost


@dataclass(frozen=True)
class Plane:
    """One whole picture in a slot. offset, nbytes: where it lies. stride_bytes: from row to row, of the first plane
    where the format has several behind each other; chroma of I420 has half of it, that of NV12 the same.

    format: RGB BGR RGBX BGRX YUYV UYVY NV12 NV21 I420 JPEG GREY. full_range, matrix ("bt601", "bt709"): of Y, U, V.
    """

    offset: int
    nbytes: int
    format: str
    width_px: int
    height_px: int
    stride_bytes: int
    full_range: bool = False
    matrix: str = "bt601"


class Outlet:
    """To the daemon. Once that has gone, every method raises SystemExit."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._free: list[int] = []
        self._lost = 0

    def request(self) -> dict[str, Any]:
        """What is wanted, the first thing that the daemon says."""
        self._socket.settimeout(10)
        length, _ = HEAD.unpack(self._exactly(HEAD.size))
        request: dict[str, Any] = json.loads(self._exactly(length))
        self._socket.settimeout(None)
        return request

    def opened(
        self, *, slot_bytes: int, camera: str, identity: str = "", note: str = "", slots: int = SLOTS, **facts: Any
    ) -> None:
        """The camera streams, or will at once. slot_bytes: what the largest picture takes, or both of a frame. camera:
        what it is called. identity: what it is known by, under whatever number it comes back. note: what was chosen.
        facts: "flipped", whether the camera itself does all that "flip_horizontal" and "flip_vertical" ask for, rather
        than nothing; "encodes", whether packets will come."""
        self._slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = os.memfd_create("edge-pose-camera", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, self._slot_bytes * slots)
        # The daemon takes no memory that could become smaller while it reads.
        fcntl.fcntl(memory, _F_ADD_SEALS, _F_SEAL_SHRINK)
        self._memory = mmap.mmap(memory, self._slot_bytes * slots)
        self._free = list(range(slots))
        header = {"camera": camera, "identity": identity, "note": note, "slot_bytes": self._slot_bytes, "slots": slots}
        message = _message("opened", {**header, **facts}, b"")
        descriptor = array.array("i", [memory])
        try:
            sent = self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
        except OSError:
            raise SystemExit from None
        os.close(memory)
        self._send(message[sent:])

    def free_slot(self, wait_s: float = 0.0) -> int | None:
        """A slot to fill; None when after so long the daemon still has not given one back."""
        assert self._memory is not None, "slots come after opened"
        self._take_back(0.0)
        if not self._free:
            self._take_back(wait_s)
        return self._free.pop(0) if self._free else None

    def slot(self, number: int) -> memoryview:
        """Its memory, of slot_bytes or a little more."""
        assert self._memory is not None, "slots come after opened"
        return memoryview(self._memory)[number * self._slot_bytes : (number + 1) * self._slot_bytes]

    def keep(self, number: int) -> None:
        """It was taken and is not sent."""
        self._free.append(number)

    def lost(self, frames: int = 1) -> None:
        """So many frames were captured and can't be handed over; the next one tells."""
        self._lost += frames

    def frame(self, slot: int, planes: Sequence[Plane], *, stamp_ns: int, clock: str) -> None:
        """planes: the picture to estimate from, and perhaps another one for people to see.

        clock: what stamp_ns is on: "monotonic", "boottime", "realtime"; "media": since the beginning; "arrival": none.
        """
        pictures = [asdict(plane) for plane in planes]
        header = {"slot": slot, "planes": pictures, "stamp_ns": stamp_ns, "clock": clock, "lost": self._lost}
        self._lost = 0
        self._send(_message("frame", header, b""))

    def packet(self, payload: bytes, *, keyframe: bool, stamp_ns: int) -> None:
        """H.264 (Annex B) of the camera's own encoder; stamp_ns: that of the frame which it shows."""
        self._send(_message("packet", {"keyframe": keyframe, "stamp_ns": stamp_ns}, payload))

    def log(self, level: str, text: str) -> None:
        """A line for the daemon's log."""
        self._send(_message("log", {"level": level, "text": text}, b""))

    def cameras(self, cameras: Sequence[dict[str, Any]]) -> None:
        """What there is, where that was asked for."""
        self._send(_message("cameras", {"cameras": list(cameras)}, b""))

    def ended(self) -> None:
        """The last frame has been given."""
        self._send(_message("ended", {}, b""))

    def failed(self, text: str, *, lost: bool) -> None:
        self._send(_message("failed", {"text": text, "lost": lost}, b""))

    def wait_for_end(self, wait_s: float) -> None:
        """Spend so much time, unless the daemon goes."""
        until_s = time.monotonic() + wait_s
        self._take_back(wait_s)
        while (left_s := until_s - time.monotonic()) > 0:
            self._take_back(left_s)

    def fileno(self) -> int:
        """Readable when a slot is given back or the daemon has gone."""
        return self._socket.fileno()

    def _take_back(self, wait_s: float) -> None:
        if select.select([self._socket], [], [], wait_s)[0]:
            try:
                given_back = self._socket.recv(64)
            except OSError:  # it has gone without reading what was sent last
                given_back = b""
            if not given_back:
                raise SystemExit
            self._free.extend(given_back)

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            more = self._socket.recv(count - len(content))
            if not more:
                raise SystemExit
            content += more
        return content

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendall(message)
        except OSError:
            raise SystemExit from None


def _message(kind: str, header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps({"type": kind, **header}).encode()
    return HEAD.pack(len(text), len(payload)) + text + payload


def run(main: Callable[[Outlet, dict[str, Any]], None]) -> None:
    """The child's whole life: `main(outlet, request)` over the socket that is this process's standard input."""
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # pictures are in its memory
    # Ctrl-C and `systemctl stop` are said to both, and a child that went first would be missed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket.socket(fileno=os.dup(0))
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    gone = select.poll()
    gone.register(connection, 0)
    if gone.poll(0):  # before the kernel was asked to say so
        return
    outlet = Outlet(connection)
    try:
        main(outlet, outlet.request())
    except Failed as error:
        outlet.failed(str(error), lost=error.lost)
    except Exception as error:  # noqa: BLE001 - the daemon has to hear of it, whatever it is
        traceback.print_exc(file=sys.stderr)
        outlet.failed(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no more is known'}", lost=True)

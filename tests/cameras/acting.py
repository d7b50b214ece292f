"""A driver that does what the source's name says: a child like those of edge/cameras/children."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .outlet import HEAD, Failed, Outlet, Plane, run

WIDTH_PX, HEIGHT_PX = 64, 48
NBYTES = WIDTH_PX * HEIGHT_PX * 3
MODES = [f"RGB {size} 30/s" for size in ("64x48", "320x240", "640x480", "800x600", "1280x720")]
FOR_EVER = threading.Event()


def main(outlet: Outlet, request: dict[str, Any]) -> None:
    """Each word of the source is a step; a number means so many frames, as fast as they are taken."""
    if request["do"] == "list":
        outlet.cameras([{"source": "acting:1", "name": "Actor", "identity": "1", "modes": MODES}])
        return
    number = 0
    for step in request["source"].split():
        if step.isdigit():
            for _ in range(int(step)):
                frame(outlet, number)
                number += 1
        else:
            STEPS[step](outlet, request)


def frame(outlet: Outlet, number: int) -> None:
    stamped(outlet, number % 256, stamp_ns=number * 1_000_000, clock="media")


def opened(outlet: Outlet, request: dict[str, Any]) -> None:
    outlet.opened(slot_bytes=NBYTES, camera="Actor", identity=request["identity"] or "actor-1", note="RGB 64x48")


def encoding(outlet: Outlet, _: dict[str, Any]) -> None:
    outlet.opened(slot_bytes=NBYTES, camera="Actor", identity="actor-2", note="", encodes=True)


def flipping(outlet: Outlet, _: dict[str, Any]) -> None:
    outlet.opened(slot_bytes=NBYTES, camera="Actor", identity="actor-3", note="", flipped=True, encodes=True)


def packets(outlet: Outlet, _: dict[str, Any]) -> None:
    for number in range(5):
        frame(outlet, number)
        if number:  # an encoder lags
            outlet.packet(b"picture %d" % (number - 1), keyframe=number == 1, stamp_ns=(number - 1) * 1_000_000)


def hang(_: Outlet, __: dict[str, Any]) -> None:
    FOR_EVER.wait()


def raised(_: Outlet, __: dict[str, Any]) -> None:
    raise ValueError("of the driver's\nown making")


def lost(_: Outlet, __: dict[str, Any]) -> None:
    raise Failed("it was unplugged", lost=True, remedy="plug it in")


def unusable(_: Outlet, __: dict[str, Any]) -> None:
    raise Failed("no such control", lost=False)


def damaged(outlet: Outlet, _: dict[str, Any]) -> None:
    slot = outlet.free_slot(wait_s=60)
    assert slot is not None
    outlet.slot(slot)[:4] = b"none"
    outlet.frame(slot, [Plane(0, 4, "JPEG", WIDTH_PX, HEIGHT_PX, 0)], stamp_ns=0, clock="arrival")


def stamped(outlet: Outlet, number: int, **stamp: Any) -> None:
    slot = outlet.free_slot(wait_s=60)
    assert slot is not None
    outlet.slot(slot)[:NBYTES] = bytes([number, 0, 255]) * (WIDTH_PX * HEIGHT_PX)
    outlet.frame(slot, [Plane(0, NBYTES, "RGB", WIDTH_PX, HEIGHT_PX, WIDTH_PX * 3)], **stamp)


def clocks(outlet: Outlet, _: dict[str, Any]) -> None:
    """A frame that is 20 ms old by each of the clocks, in turns."""
    for number, name in enumerate(("monotonic", "boottime", "realtime", "arrival")):
        clock = getattr(time, f"CLOCK_{name.upper()}", time.CLOCK_MONOTONIC)
        stamped(outlet, number, stamp_ns=time.clock_gettime_ns(clock) - 20_000_000, clock=name)


def nonsense(outlet: Outlet, _: dict[str, Any]) -> None:
    for number in range(3):
        stamped(outlet, number, stamp_ns=number, clock="monotonic")


def environment(_: Outlet, __: dict[str, Any]) -> None:
    raise Failed(f"native={os.environ.get('ACTING_NATIVE')}")


def babble(outlet: Outlet, _: dict[str, Any]) -> None:
    outlet._send(HEAD.pack(5, 0) + b"{nope")


def faceless(outlet: Outlet, _: dict[str, Any]) -> None:
    outlet.frame(0, [], stamp_ns=0, clock="arrival")


def timeless(outlet: Outlet, _: dict[str, Any]) -> None:
    stamped(outlet, 0, stamp_ns=0, clock="sidereal")


def open_unsealed(outlet: Outlet, _: dict[str, Any]) -> None:
    memory = os.memfd_create("acting")
    os.ftruncate(memory, NBYTES)
    header = {"type": "opened", "slot_bytes": NBYTES, "slots": 1, "camera": "", "identity": "", "note": ""}
    text = json.dumps(header).encode()
    connection = socket.socket(fileno=os.dup(outlet.fileno()))
    socket.send_fds(connection, [HEAD.pack(len(text), 0) + text], [memory])


def shrink(_: Outlet, __: dict[str, Any]) -> None:
    """Take the memory away that the daemon reads."""
    for link in Path("/proc/self/fd").iterdir():
        if "edge-pose-camera" in str(link.resolve()):
            os.ftruncate(int(link.name), 0)


def chatter(outlet: Outlet, _: dict[str, Any]) -> None:
    while True:
        outlet.log("warning", "element0: as it was")


def late(outlet: Outlet, _: dict[str, Any]) -> None:
    outlet.lost(7)


STEPS: dict[str, Callable[[Outlet, dict[str, Any]], None]] = {
    "open": opened,
    "encoding": encoding,
    "flipping": flipping,
    "packets": packets,
    "hang": hang,
    "crash": lambda _, __: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda _, __: os._exit(3),
    "raise": raised,
    "lost": lost,
    "unusable": unusable,
    "damaged": damaged,
    "end": lambda outlet, _: outlet.ended(),
    "clocks": clocks,
    "late": late,
    "nonsense": nonsense,
    "environment": environment,
    "babble": babble,
    "faceless": faceless,
    "timeless": timeless,
    "open-unsealed": open_unsealed,
    "shrink": shrink,
    "chatter": chatter,
    "wait": lambda outlet, _: outlet.wait_for_end(60),
}


if __name__ == "__main__":
    run(main)

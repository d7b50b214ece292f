"""A cable between two network namespaces that loses and delays packets: what tc's netem does, where the kernel has it.

usage, inside a network namespace of its own: python -m tests.measure.cable ONE OTHER

Each line on standard input is JSON, how it is from then on: {"delay_s": 0.1, "loss": 0.05}, each way; loss 1 lets
nothing through, and nobody notices by the carrier. A line comes back when that is in force, and one at the start.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import random
import select
import socket
import struct
import subprocess
import sys
import time
from array import array
from typing import Any

_ETH_P_ALL = 3
_SIOCETHTOOL = 0x8946
_OFF = (0x15, 0x17, 0x1F, 0x24, 0x2C)
"""linux/ethtool.h, what has a network card finish packets: checksums in and out, and the splitting and merging."""


def without_offloads(interface: str) -> None:
    """Have the kernel give packets of `interface` to a cable as they would be on a real one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in _OFF:
            value = array("I", [command, 0])
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(any_socket, _SIOCETHTOOL, request.ljust(40, b"\0"))
            except OSError as error:
                raise RuntimeError(f"{interface}: command {command:#x} of ethtool: {error}") from error


class Cable:
    """The daemon's end in a namespace of its own with address FAR, the hub's in this one with address NEAR."""

    NEAR, FAR = "10.98.0.1", "10.98.0.2"

    def __init__(self) -> None:
        self._places = [
            subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE),
            subprocess.Popen(
                ["unshare", "--net", sys.executable, "-m", "tests.measure.cable", "near1", "far1"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ),
        ]
        self._far, self._middle = self._places
        _ask(self._far, "there?")  # it is in its namespace now
        _ask(self._middle, "there?")
        for end in ("near", "far"):
            _ip(f"link add {end}0 type veth peer name {end}1")
            for interface in (f"{end}0", f"{end}1"):
                without_offloads(interface)
            _ip(f"link set {end}1 netns {self._middle.pid}")
        _ip(f"link set far0 netns {self._far.pid}")
        _ip(f"address add {self.NEAR}/24 dev near0")
        _ip("link set near0 up")
        self.far("ip link set lo up")
        # What every kernel has, and what Debian's cubic comes to where packets get lost. bbr would do better.
        self.far("sysctl -q -w net.ipv4.tcp_congestion_control=reno")
        self.far(f"ip address add {self.FAR}/24 dev far0")
        self.plug()
        _ask(self._middle, "begin")

    def plug(self) -> None:
        self.far("ip link set far0 up")

    def unplug(self) -> None:
        """Without the cable the daemon's side has no carrier and no route."""
        self.far("ip link set far0 down")

    def become(self, *, delay_s: float = 0.0, loss: float = 0.0) -> None:
        _ask(self._middle, json.dumps({"delay_s": delay_s, "loss": loss}))

    @property
    def there(self) -> list[str]:
        """A command that runs another one at the far end."""
        return ["nsenter", f"--net=/proc/{self._far.pid}/ns/net", "--"]

    def far(self, command: str) -> None:
        subprocess.run([*self.there, *command.split()], check=True)

    def close(self) -> None:
        for place in self._places:
            place.kill()
            place.communicate()


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _ask(process: subprocess.Popen[bytes], line: str) -> None:
    """Returns when it has answered."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()
    assert process.stdout.readline(), f"{process.args!r} has ended"


def _carry(names: list[str]) -> None:
    ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) for _ in names]
    for end, name in zip(ends, names, strict=True):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        end.bind((name, _ETH_P_ALL))
    other = {ends[0].fileno(): ends[1], ends[1].fileno(): ends[0]}
    by_number = {end.fileno(): end for end in ends}
    delay_s, loss = 0.0, 0.0
    on_the_way: list[tuple[float, int, socket.socket, bytes]] = []
    order = itertools.count()
    poll = select.poll()
    for readable in (*ends, sys.stdin):
        poll.register(readable, select.POLLIN)
    print(flush=True)
    while True:
        wait_ms = max(0.0, on_the_way[0][0] - time.monotonic()) * 1000 if on_the_way else None
        for number, _ in poll.poll(wait_ms):
            if number == sys.stdin.fileno():
                line = sys.stdin.readline()
                if not line:
                    return
                settings: dict[str, Any] = json.loads(line)
                delay_s, loss = settings["delay_s"], settings["loss"]
                print(flush=True)
                continue
            try:
                packet, (_, _, kind, *_) = by_number[number].recvfrom(65536)
            except OSError:  # told once that the end went down
                continue
            if kind != socket.PACKET_OUTGOING and random.random() >= loss:
                heapq.heappush(on_the_way, (time.monotonic() + delay_s, next(order), other[number], packet))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(on_the_way)
            with contextlib.suppress(OSError):  # the end is down: so it is lost
                end.send(packet)


def main() -> None:
    sys.stdin.readline()
    print(flush=True)
    sys.stdin.readline()
    _carry(sys.argv[1:])


if __name__ == "__main__":
    main()

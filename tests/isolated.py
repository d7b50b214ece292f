"""What the daemon and the demonstration do on the network, in a network namespace of their own.

usage, inside `unshare --net`:
    python -m tests.isolated run SECONDS MODEL     a day in the life: prints JSON, whom it tried to reach
    python -m tests.isolated offline COMMAND...    run COMMAND where there is nothing but the loopback interface

Everything that leaves any interface is seen here as on a cable: the namespace has a default route, to a neighbour that
never answers. So a look-up of a name shows as a packet to the resolver, though nobody resolves it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.cli.command import COMMAND, run_settings
from tests.conftest import eventually
from tests.mqtt.test_sink import subscriber
from tests.servers import mosquitto, rerun_server

_GATEWAY = ("10.99.0.1", "fd99::1")
_ETH_P_ALL = 3
_TCP, _UDP = 6, 17
_SYN, _ACK = 0x02, 0x10

Destination = tuple[str, str, int]
"""Protocol, address, port."""


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def connect_to_nowhere() -> None:
    ip("link set lo up")
    ip("link add out type veth peer name wall")
    Path("/proc/sys/net/ipv6/conf/out/accept_dad").write_text("0")
    ip("link set wall up")
    ip("link set out up")
    ip("address add 10.99.0.2/24 dev out")
    ip("address add fd99::2/64 dev out nodad")
    for family, gateway in zip(("-4", "-6"), _GATEWAY, strict=True):
        ip(f"{family} neighbour add {gateway} lladdr 02:00:00:00:00:01 dev out nud permanent")
        ip(f"{family} route add default via {gateway}")


def destination(packet: bytes) -> Destination | None:
    """Where a packet, IPv4 or IPv6, opens a TCP connection to or sends a datagram; None for everything else."""
    if packet[0] >> 4 == 4:
        protocol, address = packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
        transport = packet[4 * (packet[0] & 15) :]
    else:
        protocol, address = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        transport = packet[40:]
    if protocol not in (_TCP, _UDP):
        return None
    (port,) = struct.unpack_from("!H", transport, 2)
    if protocol == _TCP and transport[13] & (_SYN | _ACK) != _SYN:
        return None
    return ("tcp" if protocol == _TCP else "udp", address, port)


class Capture:
    """Collects the destinations of what goes out, from its start on."""

    def __init__(self) -> None:
        self.seen: set[Destination] = set()
        # Cooked packets: they begin with the IP header on every interface.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            packet, (_, ethertype, kind, *_) = self._socket.recvfrom(65536)
            outgoing = kind == socket.PACKET_OUTGOING
            if outgoing and ethertype in (0x0800, 0x86DD) and (found := destination(packet)):
                self.seen.add(found)


def run(seconds: float, model: str) -> dict[str, list[Destination]]:
    connect_to_nowhere()
    with (
        mosquitto() as broker,
        rerun_server() as hub,
        subscriber(broker.port) as outside,
        tempfile.TemporaryDirectory() as scratch,
    ):
        settings = run_settings(
            device="hall",
            camera__front__loop=True,
            pose__model=model,
            mqtt__url=broker.url,
            rerun__url=hub.url,
            rerun__record_dir=scratch,
        )
        capture = Capture()
        daemon = subprocess.Popen([*COMMAND, "run", *settings, "--seconds", str(seconds)])
        try:
            assert daemon.wait(seconds + 60) == 0
        finally:
            daemon.kill()
        eventually(lambda: outside.payloads("pose/v1/hall/state") == [b"online", b"stopped"], 5)
        assert len(outside.payloads("pose/v1/hall/camera/front/landmarks")) > 20
        named = [("tcp", "127.0.0.1", broker.port), ("tcp", "127.0.0.1", hub.port)]
    reached = sorted(capture.seen)
    # That silence means something: what this process looks up itself is seen.
    signal.alarm(60)
    with contextlib.suppress(OSError):
        socket.getaddrinfo("nobody.example", 443)
    eventually(lambda: len(capture.seen) > len(reached), 5)
    return {"named": sorted(named), "reached": reached, "control": sorted(capture.seen - {*reached})}


def main() -> None:
    if sys.argv[1] == "offline":
        ip("link set lo up")
        sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
    print(json.dumps(run(float(sys.argv[2]), sys.argv[3])))


if __name__ == "__main__":
    main()

"""The program of the server for viewers: python -m edge.rerun_log.serving HOST PORT MEMORY_MB APPLICATION RECORDING.

It is the SDK's own server, since devices do not have Rerun's binary, 270 MB that they have no screen for. What it
serves is written to it like to any other. It ends with a signal.
"""

from __future__ import annotations

import signal
import socket
import sys
from ipaddress import ip_address

import rerun as rr

READY = "serving"
"""What it says when it has the port."""


def main() -> None:
    host, port, memory_mb, application_id, recording_id = sys.argv[1:]
    is_v6 = ip_address(host).version == 6
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:  # the SDK only logs that it can't
        socket.create_server((host, int(port)), family=socket.AF_INET6 if is_v6 else socket.AF_INET).close()
    except OSError as error:
        sys.exit(error.strerror)
    # Its own stream says nothing, but that there is this recording, which is true.
    stream = rr.RecordingStream(application_id, recording_id=recording_id, send_properties=False)
    address = f"[{host}]" if is_v6 else host
    stream.set_sinks(rr.GrpcServerSink(address, int(port), server_memory_limit=f"{memory_mb}MB"))
    print(READY, flush=True)  # noqa: T201 - for whoever has started it
    signal.pause()


if __name__ == "__main__":
    main()

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


def main() -> None:
    host, port, memory_mb, application_id, recording_id = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    try:
        socket.create_server((host, int(port)), family=family).close()  # the SDK only logs that it can't
    except OSError as error:
        sys.exit(error.strerror)
    # Its own stream says nothing, but that there is this recording, which is true.
    stream = rr.RecordingStream(application_id, recording_id=recording_id, send_properties=False)
    stream.set_sinks(rr.GrpcServerSink(host, int(port), server_memory_limit=f"{memory_mb}MB"))
    signal.pause()


if __name__ == "__main__":
    main()

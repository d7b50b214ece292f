"""Whether a Rerun server takes what this device sends, tried without leaving a trace in it."""

from __future__ import annotations

import os
import time

from edge import tls
from edge.rerun_log.channel import Address, Channel, ChannelBrokenError


def why_out_of_reach(url: str, identity: tls.Identity, timeout_s: float) -> str | None:
    """Why the server at rerun+https://HOST:PORT/proxy takes nothing from this device, or None: it does.

    It is sent no message, and has to acknowledge just that. Raises ConfigError when a certificate can't be used.
    """
    address = Address.of(url, identity)
    never, unused = os.pipe()
    channel = None
    try:
        channel = Channel(address, timeout_s)
        call = channel.begin()
        channel.end(call)
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            if call in channel.turn(left_s, never):
                return None
    except ChannelBrokenError as error:
        return str(error)
    finally:
        if channel is not None:
            channel.close()
        os.close(never)
        os.close(unused)
    return "it does not answer"

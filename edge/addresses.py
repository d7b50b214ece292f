"""Addresses as they may be shown. Without any library: the host that provisions devices has none of a device's."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"""(?ix)
    # From the beginning of a word only: each is looked at once then, however long it is.
    ( (?<![\w-]) (?: (?<=[?&]) () )?
    (?= [\w-]* (?: pass | pwd | pw | token | secret | auth | key | sig ) ) [\w-]+ \s* = \s* )
    # A parameter of an address ends at an ampersand; a property of a GStreamer element does not.
    (?: "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | (?(2) [^&\s]+ | \S+ ) )
    """
)


def without_credentials(location: str) -> str:
    """An address with *** for user and password, and for what parameters such as password= say; the rest as it is."""
    # A password that should have been percent-encoded may hold anything: what stands behind the colon is no port then.
    location = re.sub(r"(?s)(?<=://)(?:[^/\s]*|[^/\s@:\[]*:(?!\d*(?:[/?#]|$)).*)@", "***@", location)
    return _SECRET.sub(r"\1***", location)

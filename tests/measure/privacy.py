"""What leaves a daemon in each mode of privacy: chunks by what they hold, on the disk, at a hub and on the wire to it.

usage: python -m tests.measure.privacy

The clip's 60 frames with the real model, a mosquitto and a Rerun server of its own. A line for each mode and place: the
bytes, how many chunks, what there is to see in them at most, the beginnings of encoded pictures that are found, and how
many chunks hold which archetypes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

from edge.privacy import Mode
from tests.cli.test_privacy_modes import leave
from tests.rerun_log.seen import magics, shown, unpacked
from tests.servers import mosquitto


def main() -> None:
    for mode in get_args(Mode):
        with mosquitto() as broker, tempfile.TemporaryDirectory() as scratch:
            left = leave(mode, broker, Path(scratch))
        for place, chunks in left.chunks.items():
            found = magics(unpacked(chunks)) | magics(left.raw[place])
            archetypes = Counter(
                archetype
                for chunk in chunks
                for archetype in {name.partition(":")[0] for name in chunk.schema.names if ":" in name}
                if not archetype.endswith(("Blueprint", "ViewContents"))
            )
            print(
                f"{mode:<9} {place:<8} {len(left.raw[place]):>8} bytes  {len(chunks):>3} chunks  "
                f"{max(map(shown, chunks)).name.lower():<11} pictures found: {', '.join(sorted(found)) or 'none'}"
            )
            print(" " * 19 + ", ".join(f"{name} {count}" for name, count in sorted(archetypes.items())))
        print(f"{mode:<9} MQTT     {sum(map(len, left.told)):>8} bytes  {len(left.told):>3} messages")


if __name__ == "__main__":
    main()

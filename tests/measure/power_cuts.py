"""Events on a machine that loses its power: what counted, and what is there afterwards.

usage: python -m tests.measure.power_cuts [--cuts 10] [--seed N]    as root, see tests/system/power_cut.py

The outbox as it is, and the control: the same with SQLite's synchronous=NORMAL, which does not wait for the disk. Both
also where only the process is killed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.system.power_cut import Cut, cut, guest, killed_process, new_disk, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as scratch, guest() as machine:
        for name, careless in (("as it is", False), ("careless", True)):
            began_s = time.monotonic()
            disk = Path(scratch) / f"{careless}.img"
            cuts: list[Cut] = []
            for number in range(options.cuts):
                if number % 2 == 0:
                    new_disk(disk)
                before = cuts[-1] if number % 2 else None
                cuts.append(cut(machine, disk, after_s=8 * chance.random(), careless=careless, before=before))
            print(f"{name}, power cut: {summary(cuts)}; {time.monotonic() - began_s:.0f} s", flush=True)
            killed: list[Cut] = []
            for number in range(options.cuts):
                (directory := Path(scratch) / f"{careless}{number}").mkdir()
                killed.append(killed_process(directory, after_s=chance.random(), careless=careless))
            print(f"{name}, process killed: {summary(killed)}", flush=True)


if __name__ == "__main__":
    main()

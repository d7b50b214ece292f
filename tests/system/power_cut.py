"""A machine that keeps events and loses its power: QEMU killed while it writes.

What the guest has in its page cache is gone then. Its disk is a file that QEMU writes through this machine's page
cache, which stays: what reached the disk is there, in the order in which it came. Wants root and mmdebstrap, for the
owners of files, e2fsprogs and qemu-system-x86.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import edge
from edge.mqtt.event_store import FILE_NAME, EventStore
from tests.conftest import eventually
from tests.system.images import partial_folder, run
from tests.system.nspawn import CACHE
from tests.system.qemu import PC

# The guest's Python has to be the one that the packages here are built for.
_SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
_PACKAGES = "linux-image-cloud-amd64,initramfs-tools,kmod,libpython3-stdlib,python3-minimal,udev"
_INITRAMFS = {
    "usr/share/initramfs-tools/conf.d/few": "MODULES=list\n",
    "usr/share/initramfs-tools/modules.d/few": "virtio_pci\nvirtio_blk\next4\n",
}
_INIT = """#!/bin/sh
mount -t proc proc /proc && mount -t tmpfs tmp /tmp && mount -o ro /dev/vdb /srv && mount /dev/vdc /mnt || exit
export PYTHONPATH=/srv PYTHONDONTWRITEBYTECODE=1
exec python3 -m tests.system.putter /mnt $(sed -n 's/.*putter=//p' /proc/cmdline)
"""
_LIBRARIES = (
    *("annotated_types", "cbor2", "msgspec", "numpy", "numpy.libs", "pydantic", "pydantic_core"),
    *("typing_extensions.py", "typing_inspection"),
)
_DISK_MIB = 64
_BOOT_TIMEOUT_S = 180


@dataclass(frozen=True)
class Guest:
    """A Debian that starts tests/system/putter.py and nothing else. The disks are only read."""

    kernel: Path
    initrd: Path
    system: Path
    code: Path


@dataclass(frozen=True)
class Cut:
    """What the machine said before it lost its power, and what its disk holds now.

    put: the ids that count, in order. gone: those that were removed, or were about to be. kept: the ids on the disk, in
    order. sound: what SQLite's check of the whole file says, "ok". before: the ids that were kept from an earlier cut.
    """

    put: list[str]
    gone: list[str]
    kept: list[str]
    sound: str
    before: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        there = {*self.gone, *self.kept}
        return [event_id for event_id in (*self.before, *self.put) if event_id not in there]

    @property
    def in_order(self) -> bool:
        """As they were put: by the session's time and the number in it."""
        numbers = [[int(part) for part in event_id.split("-")] for event_id in self.kept]
        return numbers == sorted(numbers)

    @property
    def beyond(self) -> int:
        """How many are kept that did not count yet."""
        return len([event_id for event_id in self.kept if event_id not in {*self.before, *self.put}])


@contextlib.contextmanager
def guest() -> Iterator[Guest]:
    recipe = hashlib.sha256(f"{_PACKAGES}{_INITRAMFS}{_INIT}".encode()).hexdigest()[:8]
    suite = _SUITES.get(sys.version_info[:2])
    assert suite, f"no Debian has the Python {sys.version_info[0]}.{sys.version_info[1]} of this environment"
    folder = CACHE / f"putter-{suite}-{recipe}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as partial:
            _build(suite, partial)
    with tempfile.TemporaryDirectory(prefix="edge-pose-guest-") as scratch:
        code = Path(scratch) / "code.img"
        _image(code, _code(Path(scratch) / "code"), 160)
        yield Guest(folder / "vmlinuz", folder / "initrd.img", folder / "system.img", code)


def cut(guest: Guest, disk: Path, *, after_s: float, careless: bool = False, before: Cut | None = None) -> Cut:
    """Boot, have it put events, cut the power `after_s` after the first one that counts.

    before: the earlier cut, where the disk has seen one.
    """
    console = disk.with_name(f"{disk.name}.console")
    console.unlink(missing_ok=True)
    with booted(guest, f"file={disk},if=virtio,format=raw", console, careless=careless) as process:
        eventually(lambda: said(console, "put") or process.poll() is not None, _BOOT_TIMEOUT_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        assert process.poll() is None, f"QEMU ended: {console.read_text(errors='replace')[:3000]}"
    assert "Traceback" not in console.read_text(errors="replace"), console.read_text(errors="replace")[-2000:]
    return Cut(said(console, "put"), said(console, "gone"), *kept_on(disk), before.kept if before else [])


@contextlib.contextmanager
def booted(guest: Guest, drive: str, console: Path, *, careless: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Until it loses its power. drive: the disk that matters, as QEMU's -drive has it."""
    program = f"putter={'careless' if careless else ''}"
    command = [
        *(
            *PC,
            "-cpu",
            "max",
            "-accel",
            "tcg,thread=single",
            "-m",
            "512",
            "-serial",
            f"file:{console}",
            "-nic",
            "none",
            "-device",
            "virtio-rng-pci",
        ),
        *("-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append"),
        f"root=/dev/vda ro rootwait console=ttyS0 quiet panic=1 init=/put {program}",
        *("-drive", f"file={guest.system},if=virtio,format=raw,readonly=on"),
        *("-drive", f"file={guest.code},if=virtio,format=raw,readonly=on"),
        *("-drive", drive),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def new_disk(disk: Path) -> Path:
    """An ext4 with nothing in it, in this file."""
    with tempfile.TemporaryDirectory() as empty:
        _image(disk, Path(empty), _DISK_MIB)
    return disk


def killed_process(directory: Path, *, after_s: float, careless: bool = False) -> Cut:
    """The same for a process that is killed on this machine, whose page cache stays."""
    command = [sys.executable, "-m", "tests.system.putter", str(directory), *(["careless"] if careless else [])]
    console = directory / "console"
    with console.open("wb") as out, subprocess.Popen(command, stdout=out) as process:
        try:
            eventually(lambda: said(console, "put"))
            time.sleep(after_s)
        finally:
            process.kill()
    return Cut(said(console, "put"), said(console, "gone"), *kept_in(directory))


def said(console: Path, what: str) -> list[str]:
    """The ids that it said this of, in whole lines."""
    lines = console.read_text(errors="replace").split("\n")[:-1] if console.exists() else []
    return [line.split()[1] for line in lines if line.startswith(f"{what} ")]


def kept_on(disk: Path) -> tuple[list[str], str]:
    """The ids in the outbox on this disk, in order, and what SQLite's check of the whole says. The disk stays as it is.

    e2fsck replays the file system's journal, as a boot would.
    """
    with tempfile.TemporaryDirectory(prefix="edge-pose-disk-") as scratch:
        copy = Path(scratch) / "disk.img"
        shutil.copyfile(disk, copy)
        checked = subprocess.run(
            ["/usr/sbin/e2fsck", "-fy", str(copy)], check=False, capture_output=True, text=True, timeout=60
        )
        assert checked.returncode in (0, 1), checked.stdout
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            run(f'/usr/sbin/debugfs -R "dump /{name} {scratch}/{name}" {copy}')
        return kept_in(Path(scratch))


def kept_in(directory: Path) -> tuple[list[str], str]:
    store = EventStore(directory)
    kept = [event.event_id for event in store.after(0, 1_000_000)]
    store.close()
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        (sound,) = db.execute("PRAGMA integrity_check").fetchone()
    return kept, sound


def _build(suite: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="edge-pose-guest-") as scratch:
        root, overlay = Path(scratch) / "root", Path(scratch) / "overlay"
        for name, text in _INITRAMFS.items():
            (overlay / name).parent.mkdir(parents=True, exist_ok=True)
            (overlay / name).write_text(text)
        options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
        # Before the kernel's package makes its initramfs.
        options += [f'--essential-hook=cp -r {overlay}/. "$1"', '--customize-hook=rm -rf "$1"/var/lib/apt/lists']
        command = ["mmdebstrap", "--quiet", "--format=directory", "--variant=minbase", f"--include={_PACKAGES}"]
        subprocess.run([*command, *options, suite, str(root)], check=True, timeout=900)
        (root / "put").write_text(_INIT)
        (root / "put").chmod(0o755)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(next((root / "boot").glob(f"{name}-*")), folder / name)
        _image(folder / "system.img", root, 512)


def _code(folder: Path) -> Path:
    """What the guest runs: this package and what it is made of, in `folder`."""
    package = Path(edge.__file__).parent
    libraries = Path(next(path for path in sys.path if path.endswith("site-packages")))
    shutil.copytree(package, folder / "edge", ignore=shutil.ignore_patterns("media", "models"))
    system = folder / "tests" / "system"
    system.mkdir(parents=True)
    for name in ("__init__.py", "putter.py"):
        shutil.copyfile(Path(__file__).with_name(name), system / name)
    for name in _LIBRARIES:
        source = libraries / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    return folder


def _image(path: Path, content: Path, size_mib: int) -> None:
    path.unlink(missing_ok=True)
    run(f"/usr/sbin/mke2fs -q -t ext4 -d {content} {path} {size_mib}m")


def summary(cuts: Sequence[Cut]) -> str:
    put, missing = sum(len(each.put) for each in cuts), [len(each.missing) for each in cuts]
    return (
        f"{len(cuts)} cuts, {put} events counted ({', '.join(str(len(each.put)) for each in cuts)}),"
        f" {sum(len(each.gone) for each in cuts)} of them removed; missing {sum(missing)}"
        f" ({', '.join(map(str, missing))}),"
        f" kept without having counted {sum(each.beyond for each in cuts)},"
        f" in order {all(each.in_order for each in cuts)}, integrity_check {', '.join({each.sound for each in cuts})}"
    )

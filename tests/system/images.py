"""Disk images of Debian, laid out and set up as those of Raspberry Pi OS, for a PC; no mounts, no loop devices.

Wants root, for the owners of files, and mmdebstrap, mtools, dosfstools, fdisk, e2fsprogs.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.nspawn import CACHE

_MIB = 1024 * 1024
_BOOT_START = 8 * _MIB  # as pi-gen aligns it
_BOOT_SIZE = 64 * _MIB
_ROOT_SPARE = 256 * _MIB
_DISK_ID = "ed9e905e"

_PACKAGES = (
    "cloud-init,dbus,e2fsprogs,initramfs-tools,iproute2,libpam-systemd,linux-image-cloud-amd64,netplan.io,"
    "network-manager,openssh-server,python3,sudo,systemd-sysv,tzdata,udev,zstd"
)

# What Raspberry Pi OS trixie has that decides how a first boot goes: pi-gen (stage1/00-boot-files, stage2,
# export-image), the packages rpi-cloud-init-mods, userconf-pi and raspberrypi-sys-mods.
_LIKE_RASPBERRY_PI_OS = {
    "etc/fstab": f"""
PARTUUID={_DISK_ID}-01 /boot/firmware vfat defaults 0 2
PARTUUID={_DISK_ID}-02 / ext4 defaults,noatime 0 1
""",
    "etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg": """
datasource_list: [NoCloud, None]
datasource: {NoCloud: {seedfrom: "file:///boot/firmware"}}
ssh_deletekeys: false
ssh_genkeytypes: []
""",
    "usr/lib/systemd/system/cloud-init-main.service.d/firmware.conf": "[Unit]\nRequiresMountsFor=/boot/firmware\n",
    "usr/lib/netplan/00-network-manager-all.yaml": "network: {version: 2, renderer: NetworkManager}\n",
    "var/lib/NetworkManager/NetworkManager.state": "[main]\nWirelessEnabled=false\n",
    # Stands for the dialog on the screen, which the boot waits for.
    "usr/lib/systemd/system/userconfig.service": """
[Unit]
After=cloud-config.service
[Service]
Type=oneshot
ExecStart=sleep infinity
[Install]
WantedBy=multi-user.target
""",
    "usr/lib/systemd/system/regenerate_ssh_host_keys.service": """
[Unit]
Before=ssh.service
[Service]
Type=oneshot
ExecStart=ssh-keygen -A
[Install]
WantedBy=multi-user.target
""",
}
_PREPARE = (
    "useradd --create-home --shell /bin/bash pi",  # locked, and there before cloud-init is
    "systemctl --quiet disable ssh getty@tty1",
    "systemctl --quiet enable userconfig regenerate_ssh_host_keys",
    "rm -f /etc/ssh/ssh_host_* /etc/machine-id && touch /etc/machine-id",
    "mkdir -p /boot/firmware /var/log/journal",
)
# The files that pi-gen puts on the boot partition for others to replace: all comments but for these lines.
_BOOT_FILES = {
    "cmdline.txt": f"console=tty1 root=PARTUUID={_DISK_ID}-02 rootfstype=ext4 fsck.repair=yes rootwait\n",
    "meta-data": "dsmode: local\ninstance_id: rpios-image\n",
    "network-config": "# nothing\n",
    "user-data": "#cloud-config\n",
}


@dataclass(frozen=True)
class DebianImage:
    """path: the raw image, compressed by xz. kernel, initrd: what boots it. root: where its / is, for the kernel."""

    path: Path
    kernel: Path
    initrd: Path
    root: str = f"PARTUUID={_DISK_ID}-02"


def like_raspberry_pi_os() -> DebianImage:
    """The image and what boots it, of the cache if they are there."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = CACHE / f"pi-like-trixie-{recipe}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as partial:
            _build(partial)
    return DebianImage(folder / "image.img.xz", folder / "vmlinuz", folder / "initrd.img")


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """A directory that becomes `folder` at the end, when all went well."""
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as scratch:
        (made := Path(scratch) / "made").mkdir()
        yield made
        made.replace(folder)


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="edge-pose-image-") as scratch:
        root, image = Path(scratch) / "root", Path(scratch) / "image.img"
        _system(root)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(next((root / "boot").glob(f"{name}-*")), folder / name)
        _partitioned(image, root)
        run(f"xz --keep --threads=0 -0 {image}")
        shutil.move(f"{image}.xz", folder / "image.img.xz")


def _system(root: Path) -> None:
    overlay = root.with_name("overlay")
    for name, text in _LIKE_RASPBERRY_PI_OS.items():
        (overlay / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay / name).write_text(text)
    options = [f'--customize-hook=cp -r {overlay}/. "$1"']
    options += [f'--customize-hook=chroot "$1" sh -c {shlex.quote(line)}' for line in _PREPARE]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
    command = ["mmdebstrap", "--quiet", "--format=directory", "--variant=minbase", f"--include={_PACKAGES}", *options]
    subprocess.run([*command, "trixie", str(root)], check=True, timeout=900)


def _partitioned(image: Path, root: Path) -> None:
    """An MBR with FAT32 (bootfs) and ext4 (rootfs)."""
    used = int(run(f"du --summarize --block-size=1 {root}").split()[0])
    root_start, root_size = _BOOT_START + _BOOT_SIZE, -(-(used + _ROOT_SPARE) // _MIB) * _MIB
    with image.open("wb") as file:
        file.truncate(root_start + root_size)
    table = f"label: dos\nlabel-id: 0x{_DISK_ID}\nunit: sectors\nsector-size: 512\n"
    for start, size, kind in ((_BOOT_START, _BOOT_SIZE, "c"), (root_start, root_size, "83")):
        table += f"start={start // 512}, size={size // 512}, type={kind}\n"
    run(f"/usr/sbin/sfdisk --quiet {image}", table)
    run(f"/usr/sbin/mkfs.vfat -F 32 -s 1 -n bootfs --offset {_BOOT_START // 512} {image} {_BOOT_SIZE // 1024}")
    for name, text in _BOOT_FILES.items():
        run(f"mcopy -i {image}@@{_BOOT_START} - ::{name}", text)
    run(f"/usr/sbin/mke2fs -q -t ext4 -L rootfs -d {root} -E offset={root_start} {image} {root_size // 1024}k")


def run(command: str, text: str | None = None) -> str:
    done = subprocess.run(shlex.split(command), input=text, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout

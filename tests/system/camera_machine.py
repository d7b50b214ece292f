"""A machine that has cameras without hardware, to boot in QEMU.

They are the kernel's own vivid, v4l2loopback, and Debian's libcamera with its pipeline "virtual" and picamera2 from
PyPI for the system's Python. A device's environment is beside them.

Wants root, mmdebstrap, e2fsprogs, qemu-system-x86, openssh-client, and pip's index when the cache is empty.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.images import partial_folder, run
from tests.system.nspawn import CACHE
from tests.system.qemu import Machine, booted
from tests.system.site import REPOSITORY

PYTHON = "/opt/edge-pose/bin/python"
"""The device's, with what requirements/device.txt says."""
DATA = "/srv"
"""Where the data's disk is, with edge-pose itself in it, in `edge-pose`."""

_PICAMERA2 = """
picamera2==0.3.38 --hash=sha256:f4122b1d3d45e3068fe2d589b1d54ded94377d26b9444e1a0c67025b717b6108
pidng==4.0.9 --hash=sha256:560eb008086f8a715fd9e1ab998817a7d4c8500a7f161b9ce6af5ab27501f82c
"""
# Raspberry Pi OS's own packages are out of reach; Debian has no picamera2.
_PACKAGES = (
    "ca-certificates,dbus,dkms,gcc,initramfs-tools,iproute2,kmod,libc6-dev,libegl1,libgles2,libpam-systemd,"
    "linux-headers-amd64,linux-image-amd64,mosquitto,openssh-server,python3,python3-dev,python3-numpy,python3-pip,"
    "python3-prctl,python3-setuptools,python3-venv,python3-wheel,systemd-sysv,udev,v4l2loopback-dkms,zstd"
)
_BACKPORTS = "libcamera-ipa libcamera-tools python3-libcamera"
_BACKPORTS_LIST = "/etc/apt/sources.list.d/backports.list"
_SPARE_MB = 300
_INSTALL = f"""set -eu
python3 -m venv /opt/edge-pose
{PYTHON} -m pip install --quiet --no-index --no-deps /wheels/device/*.whl
cd /wheels/picamera2
python3 -m pip wheel --quiet --no-index --no-deps --no-build-isolation --use-pep517 --wheel-dir . /wheels/sources/*
rm -f numpy-* typing_extensions-*  # the system's own are there
python3 -m pip install --quiet --break-system-packages --no-index --no-deps *.whl \
    /wheels/device/av-*.whl /wheels/device/pillow-*.whl
cd / && rm -rf /wheels /opt/edge-pose/lib/python3*/site-packages/rerun_cli
systemctl --quiet disable mosquitto
systemctl --quiet enable ssh systemd-networkd
"""


@dataclass(frozen=True)
class CameraImage:
    """image: a raw ext4 file system. key: the private key of its root's SSH."""

    image: Path
    kernel: Path
    initrd: Path
    key: Path


def camera_image() -> CameraImage:
    """Of the cache if it is there, else made in about three minutes."""
    files = [Path(__file__), *(REPOSITORY / f"requirements/{name}.txt" for name in ("device", "picamera2"))]
    recipe = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    folder = CACHE / f"cameras-trixie-{recipe}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as partial:
            _build(partial)
    return CameraImage(folder / "root.img", folder / "vmlinuz", folder / "initrd.img", folder / "key")


@contextmanager
def camera_machine(scratch: Path, data: Mapping[str, Path], virtual: str) -> Iterator[tuple[Machine, Path]]:
    """The machine, booted, with its key. data: files and directories for /srv, by name there. virtual: what libcamera's
    virtual pipeline is told, its virtual.yaml."""
    image = camera_image()
    disk = scratch / "data.img"
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        shutil.copytree(REPOSITORY / "edge", Path(folder, "edge-pose/edge"))
        Path(folder, "virtual.yaml").write_text(virtual)
        for name, source in data.items():
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, Path(folder, name))
        used_mb = int(run(f"du --summarize --block-size=1M {folder}").split()[0])
        run(f"/usr/sbin/mke2fs -q -t ext4 -d {folder} {disk} {used_mb * 5 // 4 + 50}m")
    console = scratch / "console.log"
    options = ["-m", "1536", "-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
    with booted(
        image.image,
        kernel=image.kernel,
        initrd=image.initrd,
        root="/dev/vda",
        console=console,
        # numpy's wheel refuses a processor without cmpxchg16b. The kernel does better without: it is emulated slowly.
        options=["-cpu", "max", *options],
        kernel_options=["clearcpuid=cx16"],
    ) as machine:
        machine.wait_for_ssh("root", image.key, 240)
        where = "/usr/share/libcamera/pipeline/virtual/virtual.yaml"
        done = machine.ssh("root", image.key, f"mount /dev/vdb {DATA} && cp {DATA}/virtual.yaml {where}")
        assert done.returncode == 0, done.stderr
        yield machine, image.key


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="edge-pose-cameras-") as scratch:
        root, wheels, key = Path(scratch, "root"), Path(scratch, "wheels"), folder / "key"
        run(f"ssh-keygen -q -t ed25519 -N '' -C cameras -f {key}")
        _download(wheels)
        _system(root, wheels, key.with_suffix(".pub").read_text())
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(next((root / "boot").glob(f"{name}-*")), folder / name)
        used_mb = int(run(f"du --summarize --block-size=1M {root}").split()[0])
        run(f"/usr/sbin/mke2fs -q -t ext4 -d {root} {folder / 'root.img'} {used_mb * 11 // 10 + _SPARE_MB}m")


def _download(wheels: Path) -> None:
    """What pip installs in the image, which reaches no index."""
    controller = REPOSITORY / "ansible/roles/edge_pose/files/controller"
    script = (
        "import sys; from pathlib import Path; from wheels import downloaded; name, lock, cache = sys.argv[1:];"
        "print(downloaded(Path(cache), name, Path(lock).read_text(), architecture='x86_64', python='3.13'))"
    )
    (CACHE / "wheelhouse").mkdir(parents=True, exist_ok=True)
    for name in ("device", "picamera2"):
        lock = REPOSITORY / f"requirements/{name}.txt"
        arguments = [f"{name}-x86_64-py3.13", str(lock), str(CACHE / "wheelhouse")]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], check=True, cwd=controller, stdout=subprocess.PIPE, text=True
        )
        shutil.copytree(done.stdout.strip(), wheels / name)
    wanted = wheels / "picamera2.txt"
    wanted.write_text(_PICAMERA2)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes"]
    subprocess.run([*pip, f"--dest={wheels}/sources", f"--requirement={wanted}"], check=True, timeout=300)


def _system(root: Path, wheels: Path, public_key: str) -> None:
    overlay = root.with_name("overlay")
    files = {
        "root/.ssh/authorized_keys": public_key,
        "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
        "etc/hostname": "cameras\n",
        "etc/systemd/network/10-eth0.network": "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n",
        "install.sh": _INSTALL,
    }
    for name, text in files.items():
        (overlay / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay / name).write_text(text)
    (overlay / "root/.ssh").chmod(0o700)
    hooks = [
        f'cp -r {overlay}/. "$1"',
        f'sed -n "s/ trixie main/ trixie-backports main/p" "$1"/etc/apt/sources.list > "$1"{_BACKPORTS_LIST}',
        'chroot "$1" apt-get update --quiet=2',
        f'chroot "$1" apt-get install --quiet=2 --yes --no-install-recommends -t trixie-backports {_BACKPORTS}',
        f'cp -r {wheels} "$1"/wheels',
        'chroot "$1" sh /install.sh',
        'chroot "$1" dkms autoinstall --kernelver "$(ls "$1"/lib/modules)"',
        'rm "$1"/install.sh',
    ]
    options = [f"--customize-hook={hook}" for hook in hooks]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
    command = ["mmdebstrap", "--quiet", "--format=directory", "--variant=minbase", f"--include={_PACKAGES}", *options]
    subprocess.run([*command, "trixie", str(root)], check=True, timeout=1200)

"""An image booted in QEMU, without hardware support: reached by SSH from here, reaching nothing."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import eventually
from tests.servers import free_port

PC = (
    *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,cx16=off"),
    *("-display", "none", "-monitor", "none", "-no-reboot"),
)
"""QEMU, with what is the same for all machines."""


@dataclass(frozen=True)
class Machine:
    """port: of its SSH on the loopback interface. console: the file that gets what its serial line says."""

    port: int
    console: Path
    process: subprocess.Popen[bytes]

    def ssh(
        self, user: str, key: Path | None, *command: str, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as `user`, who has `key` or, with None, nothing but the password that isn't asked for."""
        login = ["-i", str(key), "-o", "IdentitiesOnly=yes"] if key else ["-o", "PubkeyAuthentication=no"]
        # Its host key is new with every boot, and the way to it is this machine's loopback interface.
        trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        options = ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *trust, *login]
        return subprocess.run(
            ["ssh", *options, "-p", str(self.port), f"{user}@127.0.0.1", *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def wait_for_ssh(self, user: str, key: Path, timeout_s: float) -> None:
        def logs_in() -> bool:
            assert self.process.poll() is None, f"QEMU ended: {self.console.read_text(errors='replace')[-2000:]}"
            return self.ssh(user, key, "true").returncode == 0

        try:
            eventually(logs_in, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.console.read_text(errors='replace')[-2000:]}") from error


@contextlib.contextmanager
def booted(
    image: Path,
    *,
    kernel: Path,
    initrd: Path,
    root: str,
    console: Path,
    options: Sequence[str] = (),
    kernel_options: Sequence[str] = (),
) -> Iterator[Machine]:
    """Boot a raw image, which stays as it is: what the machine writes goes with it. options: more of QEMU's, which
    prevail. kernel_options: more for the kernel."""
    port = free_port()
    network = f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    command = [
        *(*PC, "-smp", "2", "-m", "1024", "-serial", f"file:{console}"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", " ".join([f"root={root} rootwait rw console=ttyS0 net.ifnames=0 panic=1", *kernel_options])),
        *("-drive", f"file={image},if=virtio,format=raw,snapshot=on", "-device", "virtio-rng-pci"),
        *("-netdev", network, "-device", "virtio-net-pci,netdev=net0"),
        *options,
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield Machine(port, console, process)
    finally:
        process.kill()
        process.wait()

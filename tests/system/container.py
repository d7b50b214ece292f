"""The image for 64-bit ARM, built and run on a PC: QEMU's user emulation stands for the board's processor.

Wants root, buildah, podman, runc, mmdebstrap and qemu-user-static 10 (older ones run imports, but no inference). What
takes long is kept: Debian's base, the layers, pip's downloads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.system.nspawn import CACHE

REPOSITORY = Path(__file__).parents[2]
USER = 10001
"""Whom the image runs as, Dockerfile.arm64."""

STATE = "/var/lib/edge-pose"
MODELS = "/usr/share/edge-pose/models"

_BASE = "docker.io/library/debian:bookworm-slim"
# What makes Debian's image slim, and has apt keep no packages in it.
_SLIM = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
_SLIM += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", "--include=usr-is-merged"]
_SLIM += [r"""--customize-hook=echo 'APT::Keep-Downloaded-Packages "false";' > "$1/etc/apt/apt.conf.d/slim" """]

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_EMULATOR = "edge-pose-aarch64"
# ELF, 64 bits, little endian, executable or shared, for AArch64. F: opened now, so that containers have it, too.
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe" + r"\xff" * 3
_REGISTRATION = f":{_EMULATOR}:M::{_MAGIC}:{_MASK}:/usr/bin/qemu-aarch64-static:F"

_CERTIFICATES = "/run/registry-certificates.crt"


@contextlib.contextmanager
def emulation() -> Iterator[None]:
    """The kernel starts programs for AArch64, by QEMU. What was not so before is undone."""
    with contextlib.ExitStack() as undo:
        if not (_BINFMT / "register").exists():
            _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT))
            undo.callback(_run, "umount", str(_BINFMT))
        if not any((_BINFMT / name).exists() for name in ("qemu-aarch64", _EMULATOR)):
            (_BINFMT / "register").write_text(_REGISTRATION)
            undo.callback((_BINFMT / _EMULATOR).write_text, "-1")
        found = _run("qemu-aarch64-static", "--version")
        assert int(re.findall(r"version (\d+)", found)[0]) >= 10, f"qemu-user-static 10 or newer: {found}"
        yield


@dataclass(frozen=True)
class Engine:
    """Buildah and Podman with a store of their own. directory: for what lives as long as the tests."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.directory / "storage.conf"
        store = (CACHE / "containers").resolve()
        settings.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{store}"\nrunroot = "{self.directory}/run"\n')
        self.environment.update(os.environ, CONTAINERS_STORAGE_CONF=str(settings))

    def build(self, board_set: str, **arguments: str) -> str:
        """The image for a set of requirements/, of the layers that are there already. arguments: build arguments."""
        self._have_base()
        image = f"localhost/edge-pose:{board_set}"
        settings = self.directory / "pip.conf"
        settings.write_text(_pip_settings())
        options = [f"--build-arg={name}={value}" for name, value in {"BOARD_SET": board_set, **arguments}.items()]
        if certificates := os.environ.get("PIP_CERT"):
            options.append(f"--volume={certificates}:{_CERTIFICATES}:ro")
        self.run(
            *("buildah", "bud", "--arch=arm64", "--isolation=chroot", "--pull-never", "--format=docker", "--layers"),
            *(*options, f"--secret=id=pip.conf,src={settings}", "--file=Dockerfile.arm64", f"--tag={image}", "."),
            timeout_s=3600,
        )
        return image

    def start(
        self,
        image: str,
        cpu: str,
        *arguments: str,
        options: Sequence[str] = (),
        network: str = "none",
        notify: Path | None = None,
    ) -> Container:
        """Run the image on an emulated processor, locked in as deploy/container/ does it.

        notify: the address of a socket, for what the daemon tells a service manager.
        """
        locked_in = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", f"--network={network}"]
        emulated = ["--arch=arm64", "--runtime=runc", f"--env=QEMU_CPU={cpu}"]
        emulated += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        command = ["podman", "run", "--detach", "--pull=never", *emulated, *locked_in, *options, image, *arguments]
        listener = {"NOTIFY_SOCKET": str(notify)} if notify else {}
        return Container(self, _run(*command, environment={**self.environment, **listener}, timeout_s=120).strip())

    @contextlib.contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's files, to be looked at."""
        yield Path(self.run("podman", "image", "mount", image).strip())
        self.run("podman", "image", "unmount", image)

    def inspect(self, image: str) -> dict:
        (found,) = json.loads(self.run("podman", "image", "inspect", image))
        return found

    def run(self, *command: str, timeout_s: float = 60) -> str:
        return _run(*command, environment=self.environment, timeout_s=timeout_s)

    def _have_base(self) -> None:
        """Debian's image as the registry has it, out of Debian's archive."""
        recipe = hashlib.sha256(repr(_SLIM).encode()).hexdigest()[:8]
        archive = CACHE / f"bookworm-arm64-{recipe}.tar"
        if not archive.exists():
            partial = archive.with_suffix(f".{os.getpid()}.part")
            make = ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=minbase", "--format=tar", *_SLIM]
            _run(*make, "bookworm", str(partial), timeout_s=1800)
            partial.replace(archive)
        if _BASE not in self.run("podman", "images", "--format={{.Repository}}:{{.Tag}}").split():
            self.run("podman", "import", "--quiet", "--arch=arm64", "--os=linux", str(archive), _BASE, timeout_s=300)


@dataclass(frozen=True)
class Container:
    """One that was started. Leaving it removes it."""

    engine: Engine
    name: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.engine.run("podman", "rm", "--force", "--time=1", self.name)

    def healthy(self) -> bool:
        """What the image's own health check says, run once."""
        check = ["podman", "healthcheck", "run", self.name]
        return (
            subprocess.run(check, env=self.engine.environment, check=False, capture_output=True, timeout=60).returncode
            == 0
        )

    def running(self) -> bool:
        state = self.engine.run("podman", "inspect", "--format={{.State.Running}}", self.name)
        return state.strip() == "true"

    def exit_code(self, timeout_s: float) -> int:
        """Wait for its end."""
        return int(self.engine.run("podman", "wait", self.name, timeout_s=timeout_s))

    def output(self) -> str:
        """What it has written, to standard output and standard error."""
        command = ["podman", "logs", self.name]
        done = subprocess.run(
            command,
            env=self.engine.environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        return done.stdout.decode(errors="replace")


def _pip_settings() -> str:
    """What the pip that set these tests up needs for its registry, as a pip.conf."""
    lines = ["[global]", "no-input = true"]
    for line in _run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        name = key.rsplit(".", 1)[-1]
        if name in {"index-url", "trusted-host", "proxy", "timeout", "default-timeout"}:
            lines.append(f"{name} = {shlex.split(value)[0]}")
    if os.environ.get("PIP_CERT"):
        lines.append(f"cert = {_CERTIFICATES}")
    return "\n".join([*lines, ""])


def _run(*command: str, environment: dict[str, str] | None = None, timeout_s: float = 60) -> str:
    done = subprocess.run(
        ["nice", *command],
        cwd=REPOSITORY,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, (
        f"{shlex.join(command)}: exit code {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    )
    return done.stdout

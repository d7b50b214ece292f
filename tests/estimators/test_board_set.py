from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.estimators import board_set
from edge.estimators.board_set import ARM_FEATURES, ARMV8_0, CURRENT, NoSetFits, choose, missing_features

# /proc/cpuinfo of the boards, as their kernels write it.
CORTEX_A72 = "fp asimd evtstrm crc32 cpuid"
CORTEX_A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

ROOT = Path(__file__).parents[2]


def cpuinfo(*cores: str) -> str:
    return "\n".join(
        f"processor\t: {n}\nFeatures\t: {features}\nCPU part\t: 0xd0b\n" for n, features in enumerate(cores)
    )


PI_4, PI_5 = cpuinfo(*[CORTEX_A72] * 4), cpuinfo(*[CORTEX_A76] * 4)


def test_a_raspberry_pi_5_has_all_and_a_pi_4_has_not() -> None:
    assert missing_features(PI_5, "aarch64") == frozenset()
    assert missing_features(PI_4, "aarch64") == ARM_FEATURES - {"crc32"}


def test_every_core_counts() -> None:
    assert "atomics" in missing_features(cpuinfo(CORTEX_A76, CORTEX_A72), "aarch64")


@pytest.mark.parametrize("text", ["", "processor : 0\n", "Features :\n"])
def test_what_does_not_tell_its_features_has_none(text: str) -> None:
    assert missing_features(text, "aarch64") == ARM_FEATURES


def test_other_processors_have_all_they_need() -> None:
    assert missing_features("", "x86_64") == frozenset()


@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
def test_new_cores_and_pcs_run_the_current_set(python: tuple[int, int]) -> None:
    assert choose(machine="aarch64", cpuinfo=PI_5, python=python) == CURRENT
    assert choose(machine="x86_64", cpuinfo="", python=python) == CURRENT


@pytest.mark.parametrize("python", [(3, 11), (3, 12)])
def test_old_cores_run_the_set_for_armv8_0(python: tuple[int, int]) -> None:
    assert choose(machine="aarch64", cpuinfo=PI_4, python=python) == ARMV8_0


@pytest.mark.parametrize(
    ("machine", "cores", "python", "more", "reason"),
    [
        (
            "aarch64",
            PI_4,
            (3, 13),
            {},
            "Python 3.13: on ARM cores older than v8.2 MediaPipe needs one from 3.11 to 3.12",
        ),
        ("aarch64", PI_5, (3, 10), {}, "Python 3.10: edge-pose needs one from 3.11 to 3.13; or use the container"),
        ("x86_64", "", (3, 14), {}, "Python 3.14: edge-pose needs one from 3.11 to 3.13"),
        ("armv7l", "", (3, 11), {}, "processor armv7l: MediaPipe is made for x86_64 and 64-bit ARM"),
        ("aarch64", PI_5, (3, 11), {"is_64_bit": False}, "this system's programs are 32-bit"),
        ("x86_64", "", (3, 11), {"glibc": (0, 0)}, "no glibc"),
        ("aarch64", PI_5, (3, 11), {"glibc": (2, 27)}, "glibc 2.27: the packages need glibc 2.28 or newer"),
    ],
)
def test_where_nothing_fits_the_reason_is_told(
    machine: str, cores: str, python: tuple[int, int], more: dict[str, bool | tuple[int, int]], reason: str
) -> None:
    with pytest.raises(NoSetFits, match=reason) as refused:
        choose(machine=machine, cpuinfo=cores, python=python, **more)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


@given(
    machine=st.sampled_from(["x86_64", "aarch64", "armv6l", "riscv64"]),
    cores=st.one_of(st.text(), st.just(PI_4), st.just(PI_5)),
    python=st.tuples(st.integers(2, 4), st.integers(0, 20)),
)
def test_the_answer_is_a_set_that_is_locked_or_one_line(machine: str, cores: str, python: tuple[int, int]) -> None:
    reason = ""
    try:
        name = choose(machine=machine, cpuinfo=cores, python=python)
    except NoSetFits as refusal:
        reason = str(refusal)
    assert reason.isprintable()
    assert reason or (ROOT / "requirements" / f"{name}.txt").is_file()


def test_as_a_script_it_needs_nothing_but_python() -> None:
    command = [sys.executable, "-I", "-S", board_set.__file__]
    asked = subprocess.run(command, check=True, capture_output=True, text=True)
    assert asked.stdout == f"{CURRENT}\n"

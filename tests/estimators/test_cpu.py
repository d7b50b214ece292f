from __future__ import annotations

import pytest

from edge.estimators.cpu import ARM_FEATURES, missing_features

# /proc/cpuinfo of the boards, as their kernels write it.
CORTEX_A72 = "fp asimd evtstrm crc32 cpuid"
CORTEX_A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


def cpuinfo(*cores: str) -> str:
    return "\n".join(
        f"processor\t: {n}\nFeatures\t: {features}\nCPU part\t: 0xd0b\n" for n, features in enumerate(cores)
    )


def test_a_raspberry_pi_5_has_all_and_a_pi_4_has_not() -> None:
    assert missing_features(cpuinfo(*[CORTEX_A76] * 4), "aarch64") == frozenset()
    assert missing_features(cpuinfo(*[CORTEX_A72] * 4), "aarch64") == ARM_FEATURES - {"crc32"}


def test_every_core_counts() -> None:
    assert "atomics" in missing_features(cpuinfo(CORTEX_A76, CORTEX_A72), "aarch64")


@pytest.mark.parametrize("text", ["", "processor : 0\n", "Features :\n"])
def test_what_does_not_tell_its_features_has_none(text: str) -> None:
    assert missing_features(text, "aarch64") == ARM_FEATURES


def test_other_processors_have_all_they_need() -> None:
    assert missing_features("", "x86_64") == frozenset()
    assert missing_features() == frozenset() or missing_features() <= ARM_FEATURES

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge import jpeg
from edge.vision.frame import Picture, PixelLayout, UInt8Array

WIDTH_PX, HEIGHT_PX = 64, 48


def two_colours() -> UInt8Array:
    """Red on the left, blue on the right: a decoder that swaps colours or sides is found out."""
    pixels = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    pixels[:, : WIDTH_PX // 2, 0] = 255
    pixels[:, WIDTH_PX // 2 :, 2] = 255
    return pixels


def noise() -> Picture:
    return Picture(np.random.default_rng(1).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), np.uint8), PixelLayout.RGB)


def decoded(content: bytes) -> UInt8Array:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("layout", PixelLayout)
def test_a_picture_keeps_its_size_and_its_colours(layout: PixelLayout) -> None:
    pixels = two_colours()
    if layout is PixelLayout.I420:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    picture = Picture(pixels, layout)

    content = jpeg.encode(picture)

    assert (content[:2], content[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    seen = decoded(content)
    assert seen.shape == (picture.height_px, picture.width_px, 3)
    # Away from the edge between the colours, over which JPEG smears.
    assert np.abs(seen[:, : WIDTH_PX // 4].astype(int) - (255, 0, 0)).max() < 20
    assert np.abs(seen[:, -WIDTH_PX // 4 :].astype(int) - (0, 0, 255)).max() < 20


def test_more_quality_is_more_bytes() -> None:
    sizes = [len(jpeg.encode(noise(), quality)) for quality in (1, 25, jpeg.QUALITY, 100)]

    assert sizes == sorted(set(sizes))


def test_a_picture_can_be_encoded_again_and_gives_the_same() -> None:
    picture = noise()

    assert jpeg.encode(picture) == jpeg.encode(picture)

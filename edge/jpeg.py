"""A picture as JPEG."""

from __future__ import annotations

import cv2

from edge.vision.frame import Picture, PixelLayout

QUALITY = 75


def encode(picture: Picture, quality: int = QUALITY) -> bytes:
    """quality: 1..100, that of libjpeg."""
    to_bgr = cv2.COLOR_YUV2BGR_I420 if picture.layout is PixelLayout.I420 else cv2.COLOR_RGB2BGR
    _, content = cv2.imencode(".jpg", cv2.cvtColor(picture.pixels, to_bgr), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(content.tobytes())

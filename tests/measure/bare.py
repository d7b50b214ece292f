"""MediaPipe's own loop: VIDEO mode, masks on, the clip's frames in memory, nothing else. usage: bare.py SECONDS"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["https_proxy"] = "http://127.0.0.1:9"

import cv2
import mediapipe as mp

import edge
from edge.estimators.models.store import ModelStore

CLIP = Path(edge.__file__).parent / "media" / "one_person_640x480_30fps.mp4"


def main() -> None:
    vision = mp.tasks.vision
    base = mp.tasks.BaseOptions(model_asset_path=str(ModelStore().ensure("full").path))
    options = vision.PoseLandmarkerOptions(
        base_options=base, running_mode=vision.RunningMode.VIDEO, output_segmentation_masks=True
    )
    capture = cv2.VideoCapture(str(CLIP))
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        for count in range(-20, 1_000_000):
            if count == 0:
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frames[count % len(frames)])
            landmarker.detect_for_video(image, (count + 20) * 33)
            if count > 0 and time.perf_counter() - began_s > float(sys.argv[1]):
                break
        spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(json.dumps({"frames_per_s": (count + 1) / spent_s, "cpu_ms_per_frame": 1000 * cpu_s / (count + 1)}))


main()

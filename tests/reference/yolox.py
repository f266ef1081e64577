"""What Python's ONNX Runtime sees by YOLOX: yolox.py MODEL VIDEO EVERY COUNT; a JSON line for each picture.

Pictures are decoded by ffmpeg, and converted and scaled by OpenCV, as the model's authors do it (ffmpeg's own conversion to
BGR is darker by one step of 255). "candidates" are all boxes from a score of
0.3 on, "detections" those above 0.35 that non-maximum suppression (class by class, 0.5) leaves.
"""

import json
import subprocess
import sys

import cv2
import numpy as np
import onnxruntime

model, video, every, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
SIZE = 416

grids, strides = [], []
for stride in (8, 16, 32):
    cells = SIZE // stride
    ys, xs = np.mgrid[:cells, :cells]
    grids.append(np.stack([xs, ys], -1).reshape(-1, 2))
    strides.append(np.full((cells * cells, 1), stride))
grids, strides = np.concatenate(grids), np.concatenate(strides)

probe = subprocess.run(
    ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height", "-of", "json", video],
    capture_output=True, check=True)
stream = json.loads(probe.stdout)["streams"][0]
width, height = stream["width"], stream["height"]
decoder = subprocess.Popen(
    ["ffmpeg", "-v", "error", "-i", video, "-vsync", "0", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"], stdout=subprocess.PIPE)
ratio = min(SIZE / height, SIZE / width)


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(w, 0) * max(h, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


frame = done = 0
while done < count:
    raw = decoder.stdout.read(width * height * 3 // 2)
    if len(raw) < width * height * 3 // 2:
        break
    if frame % every == 0:
        planes = np.frombuffer(raw, np.uint8).reshape(height * 3 // 2, width)
        picture = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        small = cv2.resize(picture, (int(width * ratio), int(height * ratio)), interpolation=cv2.INTER_LINEAR)
        padded = np.full((SIZE, SIZE, 3), 114, np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small
        output = session.run(None, {"images": padded.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        centres, sizes = (output[:, :2] + grids) * strides, np.exp(output[:, 2:4]) * strides
        scores = output[:, 4:5] * output[:, 5:]
        classes, best = scores.argmax(1), scores.max(1)
        candidates = []
        for i in np.where(best > 0.3)[0]:
            x, y, w, h = centres[i, 0], centres[i, 1], sizes[i, 0], sizes[i, 1]
            corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) / ratio
            corners = np.clip(corners, 0, [width, height, width, height])
            candidates.append({"class": int(classes[i]), "score": float(best[i]), "box": [float(c) for c in corners]})
        candidates.sort(key=lambda c: -c["score"])
        kept = []
        for c in candidates:
            if c["score"] > 0.35 and all(k["class"] != c["class"] or iou(k["box"], c["box"]) <= 0.5 for k in kept):
                kept.append(c)
        print(json.dumps({"frame": frame, "candidates": candidates, "detections": kept}))
        done += 1
    frame += 1
decoder.kill()

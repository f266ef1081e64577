"""Publishes a stream by ffmpeg's WHIP muxer (of PyAV's libraries): a picture with a frame counter, and a tone.

    python ffmpeg_whip.py URL SECONDS [TOKEN]
"""

import sys
import time
from fractions import Fraction

import av
import numpy

if "whip" not in av.formats_available:
    sys.exit("this ffmpeg has no WHIP muxer")
url, seconds = sys.argv[1], float(sys.argv[2])
options = {"authorization": sys.argv[3]} if len(sys.argv) > 3 else {}
out = av.open(url, "w", format="whip", options=options)
video = out.add_stream("libx264", rate=25, options={"tune": "zerolatency", "profile": "baseline", "preset": "ultrafast", "g": "50"})
video.width, video.height, video.pix_fmt = 384, 240, "yuv420p"
audio = out.add_stream("libopus", rate=48000)
audio.layout = "stereo"
begun, number, samples = time.monotonic(), 0, 0
while number < seconds * 25:
    picture = numpy.zeros((240, 384, 3), dtype=numpy.uint8)
    for bit in range(24):
        if number >> bit & 1:
            picture[:16, bit * 16 : bit * 16 + 16] = 255
    frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
    frame.pts, frame.time_base = number, Fraction(1, 25)
    out.mux(video.encode(frame))
    while samples < (number + 1) * 1920:
        tone = (8000 * numpy.sin(numpy.arange(samples, samples + 960) / 20)).astype(numpy.int16)
        sound = av.AudioFrame.from_ndarray(numpy.repeat(tone, 2).reshape(1, -1), format="s16", layout="stereo")
        sound.sample_rate, sound.pts, sound.time_base = 48000, samples, Fraction(1, 48000)
        out.mux(audio.encode(sound))
        samples += 960
    number += 1
    time.sleep(max(0, begun + number / 25 - time.monotonic()))
out.close()

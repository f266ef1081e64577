"""Publishes a stream by WHIP with aiortc: a picture with a frame counter, and a tone.

    python whip.py URL SECONDS
"""

import asyncio
import sys
import urllib.parse
import urllib.request

import numpy
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import AudioStreamTrack
from av import VideoFrame


class Counting(VideoStreamTrack):
    """24 blocks along the top edge, each a bit."""

    number = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        self.number += 1
        picture = numpy.zeros((240, 384, 3), dtype=numpy.uint8)
        for bit in range(24):
            if self.number >> bit & 1:
                picture[:16, bit * 16 : bit * 16 + 16] = 255
        frame = VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = pts, time_base
        return frame


async def main(url, seconds):
    peer = RTCPeerConnection()
    peer.addTrack(Counting())
    peer.addTrack(AudioStreamTrack())
    await peer.setLocalDescription(await peer.createOffer())

    def ask(method, to, body):
        request = urllib.request.Request(to, body, {"content-type": "application/sdp"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode(), answer.headers.get("location")

    sdp, session = await asyncio.to_thread(ask, "POST", url, peer.localDescription.sdp.encode())
    await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(ask, "DELETE", urllib.parse.urljoin(url, session), None)
    await peer.close()


asyncio.run(main(sys.argv[1], float(sys.argv[2])))

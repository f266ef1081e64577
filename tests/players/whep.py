"""Plays a stream by WHEP with aiortc and says what it has seen, as JSON.

    python whep.py URL PICTURES
"""

import asyncio
import json
import sys
import urllib.request

from aiortc import RTCPeerConnection, RTCSessionDescription


def counter(frame):
    """24 blocks along the top edge, each a bit."""
    row = frame.to_ndarray(format="gray")[: frame.width // 24]
    row = row[len(row) // 2]
    block = frame.width // 24
    return sum(1 << bit for bit in range(24) if row[bit * block + block // 2] > 128)


async def main(url, pictures):
    peer = RTCPeerConnection()
    seen, heard = [], []
    done = asyncio.Event()

    @peer.on("track")
    def on_track(track):
        async def take():
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    seen.append(counter(frame))
                    if len(seen) >= pictures:
                        done.set()
                else:
                    heard.append(frame.samples)

        tasks.append(asyncio.ensure_future(take()))

    tasks = []
    peer.addTransceiver("video", direction="recvonly")
    peer.addTransceiver("audio", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())

    def post():
        request = urllib.request.Request(
            url, peer.localDescription.sdp.encode(), {"content-type": "application/sdp"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    sdp = await asyncio.to_thread(post)
    await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    await asyncio.wait_for(done.wait(), 60)
    for task in tasks:
        task.cancel()
    await peer.close()
    print(json.dumps({"counters": seen, "sound": sum(heard)}))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))

"""Plays a stream by WHEP, or publishes one by WHIP, with GStreamer's webrtcbin, and says what it has seen, as JSON.

    python3 gst.py whep URL PICTURES
    python3 gst.py whip URL SECONDS
"""

import json
import sys
import threading
import time
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import Gst, GstApp, GstSdp, GstWebRTC  # noqa: E402

Gst.init(None)
# PyGObject makes a class when it is first asked for; two of GStreamer's threads that ask at once get two, and neither takes the other's.
CLASSES = (Gst.Buffer, Gst.Caps, Gst.FlowReturn, Gst.GhostPad, Gst.Pad, Gst.Promise, Gst.Sample, Gst.Structure, GstApp.AppSink)
SIZE = (384, 240)
BLOCK = SIZE[0] // 24


def counter(row):
    """24 blocks along the top edge, each a bit."""
    return sum(1 << bit for bit in range(24) if row[bit * BLOCK + BLOCK // 2] > 128)


class Session:
    def __init__(self, launch, url):
        # A single element would be no pipeline.
        self.pipeline = Gst.Pipeline.new()
        self.pipeline.add(Gst.parse_bin_from_description(launch, False))
        self.peer = self.pipeline.get_by_name("peer")
        self.url = url
        self.gathered = threading.Event()
        self.peer.connect("notify::ice-gathering-state", self.on_gathering)

    def on_gathering(self, peer, _):
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def begin(self):
        # The offer is the promise's, and gone with it.
        offered = Gst.Promise.new()
        self.peer.emit("create-offer", None, offered)
        offered.wait()
        reply = offered.get_reply()
        offer = reply.get_value("offer")
        promise = Gst.Promise.new()
        self.peer.emit("set-local-description", offer, promise)
        promise.wait()
        assert self.gathered.wait(20), "no candidates"
        offer = self.peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(
            self.url, offer.encode(), {"content-type": "application/sdp"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            self.session = urllib.parse.urljoin(self.url, answer.headers["location"])
            text = answer.read().decode()
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        promise = Gst.Promise.new()
        self.peer.emit("set-remote-description", described, promise)
        promise.wait()

    def end(self):
        request = urllib.request.Request(self.session, method="DELETE")
        urllib.request.urlopen(request, timeout=20).close()
        self.pipeline.set_state(Gst.State.NULL)


def watch(url, pictures):
    session = Session("webrtcbin name=peer bundle-policy=max-bundle", url)
    seen, heard, done = [], [], threading.Event()

    def on_sample(sink):
        sample = sink.emit("pull-sample")
        data = sample.get_buffer().extract_dup(BLOCK // 2 * SIZE[0], SIZE[0])
        seen.append(counter(data))
        if len(seen) >= pictures:
            done.set()
        return Gst.FlowReturn.OK

    def on_sound(sink):
        heard.append(sink.emit("pull-sample").get_buffer().get_size())
        return Gst.FlowReturn.OK

    def on_pad(_, pad):
        caps = pad.get_current_caps().get_structure(0)
        if caps.get_string("media") == "video":
            line = "rtph264depay ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=GRAY8"
            take = on_sample
        else:
            line = "rtpopusdepay ! opusdec ! audioconvert ! audio/x-raw,format=S16LE,channels=1"
            take = on_sound
        part = Gst.parse_bin_from_description(line + " ! appsink name=sink emit-signals=true sync=false", True)
        part.get_by_name("sink").connect("new-sample", take)
        session.peer.get_parent().add(part)
        part.sync_state_with_parent()
        pad.link(part.get_static_pad("sink"))

    session.peer.connect("pad-added", on_pad)
    session.pipeline.set_state(Gst.State.PLAYING)
    for caps in (
        "application/x-rtp,media=video,encoding-name=H264,payload=102,clock-rate=90000,packetization-mode=(string)1,"
        "profile-level-id=(string)42e01f,rtcp-fb-nack=true,rtcp-fb-nack-pli=true",
        "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2",
    ):
        session.peer.emit(
            "add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, Gst.Caps.from_string(caps)
        )
    session.begin()
    assert done.wait(60), f"only {len(seen)} pictures"
    session.end()
    print(json.dumps({"counters": seen, "sound": sum(heard)}))


def publish(url, seconds):
    session = Session(
        "webrtcbin name=peer bundle-policy=max-bundle "
        f"appsrc name=in is-live=true format=time caps=video/x-raw,format=GRAY8,width={SIZE[0]},height={SIZE[1]},framerate=25/1 "
        "! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency key-int-max=50 ! video/x-h264,profile=baseline "
        "! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! application/x-rtp,media=video,encoding-name=H264,payload=102 ! peer. "
        "audiotestsrc is-live=true ! audioconvert ! opusenc ! rtpopuspay ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! peer.",
        url,
    )
    source = session.pipeline.get_by_name("in")
    session.pipeline.set_state(Gst.State.PLAYING)
    # An offer knows its codecs when something has passed.
    begun = time.monotonic()

    def push(number):
        picture = bytearray(b"\x40" * (SIZE[0] * SIZE[1]))
        row = b"".join((b"\xeb" if number & (1 << bit) else b"\x10") * BLOCK for bit in range(24))
        picture[: SIZE[0] * BLOCK] = row * BLOCK
        buffer = Gst.Buffer.new_wrapped(bytes(picture))
        buffer.pts = session.pipeline.get_clock().get_time() - session.pipeline.get_base_time()
        buffer.duration = Gst.SECOND // 25
        source.emit("push-buffer", buffer)

    stop = threading.Event()

    def pictures():
        number = 0
        while not stop.wait(max(0, begun + number / 25 - time.monotonic())):
            push(number)
            number += 1

    thread = threading.Thread(target=pictures)
    thread.start()
    while not all(pad.get_current_caps() for pad in session.peer.sinkpads):
        time.sleep(0.02)
    for number in range(2):
        session.peer.emit("get-transceiver", number).set_property(
            "direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY
        )
    session.begin()
    time.sleep(seconds)
    stop.set()
    thread.join()
    session.end()
    print(json.dumps({}))


if sys.argv[1] == "whep":
    watch(sys.argv[2], int(sys.argv[3]))
else:
    publish(sys.argv[2], int(sys.argv[3]))

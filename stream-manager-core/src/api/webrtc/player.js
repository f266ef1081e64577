// Plays a stream of Stream Manager by WebRTC (WHEP), or publishes one (WHIP). Any page may load this module:
//
//   import { WhepPlayer, WhipPublisher } from "https://server:3000/webrtc/player.js";
//   const player = new WhepPlayer(document.querySelector("video"), "https://server:3000/webrtc/camera-1/whep");
//   player.start();
//   const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
//   const publisher = new WhipPublisher(media, "https://server:3000/webrtc/phone/whip");
//   publisher.start();
//
// Both connect again by themselves, with growing pauses, until stop() is called. Options: `token`, sent as a bearer
// token; `onstate(state, detail)` with "connecting", "playing" or "publishing", "waiting" (and why, and the HTTP status if there is one) or "stopped";
// `connection`, more for the RTCPeerConnection, such as {iceTransportPolicy: "relay"}; `ondetections(message)`, told what is seen in each
// analysed picture, with its `rtp_timestamp`: that of the picture which `requestVideoFrameCallback` tells as `rtpTimestamp`.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;
const CONNECT_LIMIT_MS = 15000;

/** The ICE servers that `Link` headers tell (RFC 9725 section 4.6). */
export function iceServers(link) {
  const servers = [];
  for (const [, url, rest] of (link ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+="(?:[^"\\]|\\.)*")*)/g)) {
    const values = {};
    for (const [, name, value] of rest.matchAll(/([\w-]+)="((?:[^"\\]|\\.)*)"/g)) {
      values[name.toLowerCase()] = value.replace(/\\(.)/g, "$1");
    }
    if (values.rel === "ice-server") {
      servers.push({ urls: url, username: values.username, credential: values.credential });
    }
  }
  return servers;
}

/** What a report says of the picture. */
function picture(report, reports) {
  return {
    width: report.frameWidth ?? 0,
    height: report.frameHeight ?? 0,
    framesPerSecond: report.framesPerSecond ?? 0,
    codec: reports.get(report.codecId)?.mimeType,
  };
}

/** What both have in common: a session that is begun again when it ends. */
class Session {
  #url;
  #options;
  #live;
  #peer = null;
  #session = null;
  #attempt = 0;
  #pause = FIRST_PAUSE_MS;
  #timer = null;

  /** `live` is the state's name while media flows. */
  constructor(url, options, live) {
    this.#url = new URL(url, globalThis.location?.href);
    this.#options = options;
    this.#live = live;
  }

  /** Adds to a new connection what is to be sent or received. */
  prepare(_peer) {}

  /** The connection, or null. */
  get peer() {
    return this.#peer;
  }

  /** Begins. */
  start() {
    this.#attempt += 1;
    this.#leave();
    this.#pause = FIRST_PAUSE_MS;
    this.#connect();
  }

  /** Ends, and says so to the server. */
  stop() {
    this.#attempt += 1;
    this.#leave();
    this.#tell("stopped");
  }

  #tell(state, detail = "", status = 0) {
    this.#options.onstate?.(state, detail, status);
  }

  #headers(more = {}) {
    return this.#options.token ? { authorization: `Bearer ${this.#options.token}`, ...more } : more;
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#peer?.close();
    this.#peer = null;
    if (this.#session) {
      // Also when the page is being left.
      fetch(this.#session, { method: "DELETE", headers: this.#headers(), keepalive: true }).catch(() => {});
      this.#session = null;
    }
  }

  #again(attempt, why, status) {
    if (attempt !== this.#attempt) return;
    this.#attempt += 1;
    this.#leave();
    this.#tell("waiting", why, status);
    // Not everybody at the same moment.
    this.#timer = setTimeout(() => this.#connect(), this.#pause * (0.75 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
  }

  async #connect() {
    const attempt = ++this.#attempt;
    this.#tell("connecting");
    const peer = new RTCPeerConnection(this.#options.connection);
    this.#peer = peer;
    try {
      this.prepare(peer);
      peer.onconnectionstatechange = () => {
        const state = peer.connectionState;
        if (state === "connected") {
          clearTimeout(this.#timer);
          this.#pause = FIRST_PAUSE_MS;
          this.#tell(this.#live);
        } else if (state === "failed" || state === "disconnected" || state === "closed") {
          this.#again(attempt, "the connection was lost");
        }
      };
      const asked = fetch(this.#url, { method: "OPTIONS", headers: this.#headers() }).catch(() => null);
      const offer = await peer.createOffer();
      const servers = iceServers((await asked)?.headers.get("link"));
      if (attempt !== this.#attempt) return;
      if (servers.length > 0) peer.setConfiguration({ ...this.#options.connection, iceServers: servers });
      await peer.setLocalDescription(offer);
      const headers = this.#headers({ "content-type": "application/sdp" });
      const answer = await fetch(this.#url, { method: "POST", headers, body: peer.localDescription.sdp });
      const text = await answer.text();
      const session = answer.headers.get("location");
      if (attempt !== this.#attempt) {
        if (answer.ok && session) {
          fetch(new URL(session, this.#url), { method: "DELETE", headers: this.#headers(), keepalive: true }).catch(() => {});
        }
        return;
      }
      if (answer.status !== 201) {
        let why = `HTTP ${answer.status}`;
        try {
          why = JSON.parse(text).detail ?? why;
        } catch {}
        throw Object.assign(new Error(why), { status: answer.status });
      }
      if (session) this.#session = new URL(session, this.#url);
      await peer.setRemoteDescription({ type: "answer", sdp: text });
      this.#timer = setTimeout(() => this.#again(attempt, "no connection could be made"), CONNECT_LIMIT_MS);
    } catch (error) {
      this.#again(attempt, error.message, error.status);
    }
  }
}

export class WhepPlayer extends Session {
  #video;
  #told;

  constructor(video, url, options = {}) {
    super(url, options, "playing");
    this.#video = video;
    this.#told = options.ondetections;
  }

  prepare(peer) {
    const stream = new MediaStream();
    for (const kind of ["video", "audio"]) {
      const { receiver } = peer.addTransceiver(kind, { direction: "recvonly" });
      // As soon as possible: this is a live picture.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    }
    if (this.#told) {
      const channel = peer.createDataChannel("detections");
      channel.onmessage = ({ data }) => this.#told(JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data)));
    }
    peer.ontrack = ({ track }) => {
      stream.addTrack(track);
      if (this.#video.srcObject !== stream) this.#video.srcObject = stream;
      this.#video.play?.().catch(() => {});
    };
  }

  /** What is known of the connection: size, frames and bits per second, losses, delays in milliseconds. */
  async statistics() {
    const found = { width: 0, height: 0, framesPerSecond: 0, framesReceived: 0, framesDecoded: 0, bytes: 0, packetsLost: 0 };
    const reports = (await this.peer?.getStats()) ?? new Map();
    for (const report of reports.values()) {
      if (report.type === "inbound-rtp") {
        found.bytes += report.bytesReceived ?? 0;
        found.packetsLost += report.packetsLost ?? 0;
        if (report.kind === "video") {
          Object.assign(found, picture(report, reports));
          found.framesReceived = report.framesReceived ?? 0;
          found.framesDecoded = report.framesDecoded ?? 0;
          if (report.jitterBufferEmittedCount > 0) {
            found.bufferMs = (report.jitterBufferDelay / report.jitterBufferEmittedCount) * 1000;
          }
        } else {
          found.soundCodec = reports.get(report.codecId)?.mimeType;
          found.soundPackets = report.packetsReceived ?? 0;
        }
      } else if (report.type === "candidate-pair" && report.nominated) {
        found.roundTripMs = (report.currentRoundTripTime ?? 0) * 1000;
        const local = reports.get(report.localCandidateId);
        found.transport = local?.candidateType === "relay" ? "relay" : local?.protocol;
      }
    }
    return found;
  }
}

export class WhipPublisher extends Session {
  #media;

  constructor(media, url, options = {}) {
    super(url, options, "publishing");
    this.#media = media;
  }

  prepare(peer) {
    for (const track of this.#media.getTracks()) {
      peer.addTransceiver(track, { direction: "sendonly", streams: [this.#media] });
    }
  }

  /** What is known of the connection: size, frames and bits per second, losses, delays in milliseconds. */
  async statistics() {
    const found = { width: 0, height: 0, framesPerSecond: 0, framesSent: 0, bytes: 0, packetsLost: 0 };
    const reports = (await this.peer?.getStats()) ?? new Map();
    for (const report of reports.values()) {
      if (report.type === "outbound-rtp") {
        found.bytes += report.bytesSent ?? 0;
        if (report.kind === "video") {
          Object.assign(found, picture(report, reports));
          found.framesSent = report.framesSent ?? 0;
        }
      } else if (report.type === "remote-inbound-rtp") {
        found.packetsLost += report.packetsLost ?? 0;
        found.roundTripMs = (report.roundTripTime ?? 0) * 1000;
      }
    }
    return found;
  }
}

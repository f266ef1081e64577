//! Stream Manager: takes in live streams, cameras above all, and records them.
//!
//! The library behind the program `stream-manager`. It runs on the caller's tokio runtime, prints nothing,
//! installs no global subscriber and cleans up when it is dropped.
//!
//! ```no_run
//! use std::time::Duration;
//! use stream_manager_core::manager::{Stream, StreamManager};
//! use stream_manager_core::recording::Recording;
//! use stream_manager_core::source::TestSource;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let manager = StreamManager::builder()
//!         .data_dir("data")
//!         .stream(Stream::builder("camera-1").source(TestSource::default()).record(Recording::fmp4()))
//!         .build()
//!         .await?;
//!     tokio::time::sleep(Duration::from_secs(60)).await;
//!     manager.shutdown().await; // finishes every file
//!     Ok(())
//! }
//! ```
//!
//! # The way of a frame
//!
//! A [`Source`](source::Source) writes access units into its stream's [`Hub`](hub::Hub), which puts them
//! onto one continuous timeline and hands them, by reference, to every [`Sink`](sink::Sink) through a
//! bounded queue of its own. The [recorder](recording) is such a sink. A [supervisor](manager) per stream
//! connects, watches, and tries again. See `docs/ARCHITECTURE.md` in the repository.
//!
//! # Features
//!
//! - `http`: the REST control plane as an `axum::Router` (module `api`), hooks, metrics (module `metrics`), the whole server (module `service`), and a
//!   client (module `client`).
//! - `mqtt`: events to an MQTT broker.
//! - `rtsp`: the RTSP server (module `rtsp`).
//! - `hls`: HLS, DASH and fMP4 for players (module `hls`).
//! - `onvif`: cameras that are found and described by ONVIF, and their events (module `onvif`).
//! - `webrtc`: WHEP, for browsers (module `webrtc`).
//! - `inference`: object detection and classification (module `inference`).
//! - `tensorrt`: the same on NVIDIA GPUs.
//! - `encryption`: backups that only who has the key can read (module [`backup`]).
//! - `otel`: traces, logs and metrics by OTLP (module `otel`).

#[cfg(feature = "http")]
pub mod api;
pub mod auth;
mod backoff;
pub mod backup;
#[cfg(feature = "http")]
pub mod client;
pub mod config;
pub mod detection;
pub mod error;
pub mod event;
#[cfg(any(feature = "http", feature = "rtsp"))]
mod file_state;
pub mod fmp4;
pub mod frame;
#[cfg(feature = "http")]
pub mod health;
#[cfg(feature = "hls")]
pub mod hls;
#[cfg(feature = "http")]
pub mod hooks;
#[cfg(any(feature = "http", feature = "onvif", feature = "webrtc"))]
mod http_client;
pub mod hub;
#[cfg(feature = "inference")]
pub mod inference;
#[cfg(feature = "http")]
pub mod logs;
pub mod manager;
#[cfg(feature = "http")]
pub mod metrics;
pub mod object;
#[cfg(feature = "onvif")]
pub mod onvif;
#[cfg(feature = "otel")]
pub mod otel;
pub mod outbound;
pub mod pipeline;
pub mod playback;
pub mod recording;
#[cfg(feature = "rtmp")]
pub mod rtmp;
pub mod rtp;
#[cfg(feature = "rtsp")]
pub mod rtsp;
mod schedule;
#[cfg(feature = "http")]
pub mod service;
pub mod session;
pub mod shape;
pub mod sink;
pub mod source;
pub mod storage;
#[cfg(any(feature = "http", feature = "rtmp", feature = "rtsp"))]
mod tcp;
#[cfg(any(feature = "http", feature = "rtsp"))]
mod tls;
mod trace;
#[cfg(feature = "webrtc")]
pub mod webrtc;
pub mod week;

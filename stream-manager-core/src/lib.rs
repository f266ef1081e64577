//! x
pub mod error;
pub mod event;
pub mod fmp4;
pub mod frame;
pub mod hub;
pub mod pipeline;
pub mod recording;
pub mod sink;
pub mod source;
pub mod storage;

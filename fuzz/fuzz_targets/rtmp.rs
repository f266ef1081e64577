//! What comes by RTMP, from anybody: chunks, commands, media.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use stream_manager_core::rtmp::{ChunkReader, audio, read_values, video};

fuzz_target!(|data: &[u8]| {
    let (mut chunks, mut comes) = (ChunkReader::default(), BytesMut::from(data));
    chunks.allow_media();
    while let Ok(Some(message)) = chunks.read(&mut comes) {
        let _ = match message.kind {
            8 => audio(message.body).map(drop),
            9 => video(message.body).map(drop),
            _ => Ok(drop(read_values(message.body))),
        };
    }
});

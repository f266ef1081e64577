//! What players send, and files as they are handed on to players: any text as a playlist's query, any bytes as MP4. No panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stream_manager_core::fmp4::{filter_fragments, filter_init, shift_fragment};
use stream_manager_core::hls::ReloadQuery;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(query) = ReloadQuery::parse(text)
    {
        assert!(query.part.is_none() || query.number.is_some());
    }
    let _ = filter_init(data, &[1]);
    let _ = filter_fragments(data, &[1]);
    let fragment = bytes::Bytes::copy_from_slice(data);
    if let Some(shifted) = shift_fragment(&fragment, 90_000, 1) {
        assert_eq!(shifted.header.len() + shifted.payload.len(), data.len());
    }
});

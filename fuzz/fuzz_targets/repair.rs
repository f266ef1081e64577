//! Any bytes as a segment file: it is read, cut and given its duration without a panic, and what is left is
//! whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use stream_manager_core::fmp4::{payload_is_plausible, scan};
use stream_manager_core::storage::index::PartList;
use stream_manager_core::storage::parse_segment_name;

fuzz_target!(|data: &[u8]| {
    PartList::entries(data);
    if let Ok(name) = std::str::from_utf8(data) {
        parse_segment_name(name);
    }
    let Ok(found) = scan(&mut Cursor::new(data)) else { return };
    assert!(found.whole_bytes <= found.file_bytes && found.file_bytes == data.len() as u64);
    for part in &found.parts {
        payload_is_plausible(&mut Cursor::new(data), &found, part).unwrap();
    }
    // Cut after its last whole part, it is whole and the same.
    let whole = &data[..usize::try_from(found.whole_bytes).unwrap()];
    if !found.parts.is_empty() {
        let again = scan(&mut Cursor::new(whole)).unwrap();
        assert!(again.is_whole());
        assert_eq!(again.parts, found.parts);
    }
});

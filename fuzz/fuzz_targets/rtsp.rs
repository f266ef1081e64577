//! Any bytes as what an RTSP client sends, and as the credentials in it.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use stream_manager_core::auth::digest::{AuthMethod, Challenges};
use stream_manager_core::rtsp::{Incoming, next_message};

fuzz_target!(|data: &[u8]| {
    // In pieces, whose size the first byte says: what is found must not depend on it.
    let step = usize::from(data.first().copied().unwrap_or(0)) + 1;
    let read = |step: usize| {
        let (mut buffer, mut searched, mut found) = (BytesMut::new(), 0, Vec::new());
        for chunk in data.chunks(step) {
            buffer.extend_from_slice(chunk);
            loop {
                match next_message(&mut buffer, &mut searched) {
                    Ok(Some(Incoming::Data { channel, payload })) => found.push(format!("{channel} {}", payload.len())),
                    Ok(Some(Incoming::Request(request))) => found.push(format!("{:?}", request.method())),
                    Ok(Some(Incoming::Response(_))) => found.push("response".into()),
                    Ok(None) => break,
                    Err(_) => return found,
                }
            }
        }
        found
    };
    // A request that is too long may be noticed earlier or later; everything before it is the same.
    let (small, whole) = (read(step), read(usize::MAX));
    assert!(small.iter().zip(&whole).all(|(a, b)| a == b));
    if let Ok(text) = std::str::from_utf8(data) {
        let all = [AuthMethod::Basic, AuthMethod::Digest, AuthMethod::DigestSha256];
        let _ = Challenges::new(&all, Duration::from_secs(60)).read(text, "DESCRIBE");
    }
});

//! `srt://` addresses, as both of GStreamer's SRT elements want them.

use gstreamer as gst;
use gstreamer::prelude::*;
use url::Url;

/// Whether we wait for others to come, as an address says.
pub(crate) fn listens(url: &Url) -> bool {
    url.query_pairs().any(|(name, value)| name == "mode" && value == "listener")
}

/// Sets an element's address: in properties, so that no message of the element's has the passphrase in it.
pub(crate) fn set_srt_address(element: &gst::Element, url: &Url) {
    let mut bare = url.clone();
    // Whose address it is depends on that.
    bare.set_query(listens(url).then_some("mode=listener"));
    element.set_property("uri", bare.as_str());
    for (name, value) in url.query_pairs() {
        match &*name {
            "mode" if value == "rendezvous" => element.set_property_from_str("mode", &value),
            "streamid" => element.set_property("streamid", value.as_ref()),
            "passphrase" => element.set_property("passphrase", value.as_ref()),
            "pbkeylen" => element.set_property_from_str("pbkeylen", &value),
            "latency" => element.set_property("latency", value.parse().unwrap_or(125i32)),
            _ => {}
        }
    }
    // Whoever owns it connects again, and says so.
    if element.find_property("auto-reconnect").is_some() {
        element.set_property("auto-reconnect", false);
    }
}

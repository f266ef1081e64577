//! Other qualities in which a camera sends the same picture.

use super::transcode::TranscodeConfig;
use super::{Address, Defaults, StreamConfig};
use crate::source::SourceTransport;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last part of the id of the stream that has what is seen drawn into its picture.
pub const ANNOTATED: &str = "annotated";

/// How many streams may be made of one.
const MAX_DERIVED: usize = 8;

/// `[[streams.variants]]`: the same picture in another quality, which the camera sends too. It is a stream of its own, `<id>/<name>`,
/// that is connected to while somebody reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantConfig {
    /// The last part of its id, such as `sub`.
    pub name: String,
    /// Where it comes from. User and password are the stream's, if there are none in it.
    #[schemars(regex(
        pattern = r"^((rtsps?|https?|wheps?|file|test|udp|srt|rtmps?|sdp|v4l2)://.+|(gst|exec):.+)$"
    ))]
    pub source_url: Address,
    /// How RTP travels, if not as for the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<SourceTransport>,
}

impl StreamConfig {
    /// The ids of the streams that are made of this one, each behind the JSON pointer of what has it made.
    pub fn derived_ids(&self, defaults: &Defaults) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let annotated = self.inference.resolve(&defaults.inference).is_annotated();
        let annotated = annotated.then(|| ("/inference/annotated", format!("{}/{ANNOTATED}", self.id)));
        let transcoded = self.transcode.iter().map(|rendition| ("/transcode", rendition.id(&self.id)));
        transcoded.chain(self.variant_ids().map(|id| ("/variants", id))).chain(annotated)
    }

    /// The ids of its variants.
    pub(super) fn variant_ids(&self) -> impl Iterator<Item = String> + '_ {
        self.variants.iter().map(|variant| format!("{}/{}", self.id, variant.name))
    }

    /// The streams that show the same in other qualities: its variants, and those that are named for players.
    pub fn qualities(&self) -> Vec<String> {
        self.hls.variants.iter().flatten().cloned().chain(self.variant_ids()).collect()
    }
}

/// What is wrong with the streams that are made of one: the key, and what would be right.
///
/// # Errors
/// Names the key.
pub fn check_derived(
    id: &str,
    renditions: &[TranscodeConfig],
    variants: &[VariantConfig],
) -> Result<(), (&'static str, String)> {
    let count = renditions.len() + variants.len();
    if count > MAX_DERIVED {
        let key = if variants.is_empty() { "transcode" } else { "variants" };
        return Err((key, format!("there are {count} of it and its like; expected {MAX_DERIVED} at most")));
    }
    let named = (1..).zip(renditions).map(|(number, rendition)| ("transcode", number, &rendition.name));
    let named = named.chain((1..).zip(variants).map(|(number, variant)| ("variants", number, &variant.name)));
    let mut seen = std::collections::HashSet::new();
    for (key, number, name) in named {
        let wrong = |problem: String| Err((key, format!("number {number}: {problem}")));
        if name.contains('/') || name.contains('*') {
            return wrong(format!("name is \"{name}\"; expected one part of an id, such as 720p or sub"));
        }
        if let Err(error) = format!("{id}/{name}").parse::<crate::manager::StreamId>() {
            return wrong(format!("name is \"{name}\": {error}"));
        }
        if !seen.insert(name) {
            return wrong(format!("the name \"{name}\" is taken by an earlier one"));
        }
    }
    renditions.iter().zip(1..).try_for_each(|(rendition, number)| {
        rendition.check().map_err(|problem| ("transcode", format!("number {number}: {problem}")))
    })
}

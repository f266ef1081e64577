//! MPDs held against what ISO/IEC 23009-1's schema says of the elements that appear in them: which attributes there may be and of
//! which type, which children, and in which order.

use std::collections::HashMap;

/// An element.
#[derive(Clone, Debug, Default)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: HashMap<String, String>,
    /// What is in it.
    pub children: Vec<Element>,
    /// Its text.
    pub text: String,
}

impl Element {
    /// The first element of this name, anywhere below.
    pub fn find(&self, name: &str) -> Option<&Self> {
        self.children.iter().find_map(|c| if c.name == name { Some(c) } else { c.find(name) })
    }

    /// A number among the attributes.
    pub fn number(&self, name: &str) -> u64 {
        self.attributes[name].parse().unwrap()
    }
}

/// Reads XML without comments, entities or mixed content.
pub fn read(text: &str) -> Element {
    let text =
        text.trim().strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).expect("no declaration").1;
    let mut open: Vec<Element> = vec![Element::default()];
    for piece in text.split('<').skip(1) {
        let (tag, behind) = piece.split_once('>').expect("a tag that does not end");
        if let Some(name) = tag.strip_prefix('/') {
            let done = open.pop().unwrap();
            assert_eq!(done.name, name, "a tag ends that did not begin");
            open.last_mut().unwrap().children.push(done);
            continue;
        }
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut element = Element { name: name.to_owned(), text: behind.to_owned(), ..Element::default() };
        while let Some((name, after)) = rest.trim().split_once("=\"") {
            let (value, after) = after.split_once('"').expect("an attribute that does not end");
            let twice = element.attributes.insert(name.trim().to_owned(), value.to_owned());
            assert!(twice.is_none(), "{name} comes twice");
            rest = after;
        }
        if empty { open.last_mut().unwrap().children.push(element) } else { open.push(element) }
    }
    let mut root = open.pop().unwrap();
    assert!(open.is_empty() && root.children.len() == 1, "not one element at the top");
    root.children.remove(0)
}

/// An element's attributes with their types, and its children in their order. A `!` marks what has to be there.
type Rule = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const RULES: &[Rule] = &[
    (
        "MPD",
        &[
            ("profiles!", "string"),
            ("type", "dynamic"),
            ("availabilityStartTime!", "time"),
            ("publishTime!", "time"),
            ("minimumUpdatePeriod", "duration"),
            ("minBufferTime!", "duration"),
            ("timeShiftBufferDepth", "duration"),
            ("suggestedPresentationDelay", "duration"),
            ("maxSegmentDuration", "duration"),
        ],
        &["BaseURL", "Location", "ServiceDescription", "Period", "UTCTiming"],
    ),
    ("BaseURL", &[], &[]),
    ("Location", &[], &[]),
    ("ServiceDescription", &[("id", "uint")], &["Latency", "PlaybackRate"]),
    ("Latency", &[("target", "uint"), ("min", "uint"), ("max", "uint")], &[]),
    ("PlaybackRate", &[("min", "double"), ("max", "double")], &[]),
    ("Period", &[("id", "string"), ("start", "duration")], &["AdaptationSet"]),
    (
        "AdaptationSet",
        &[("id", "uint"), ("contentType", "string"), ("segmentAlignment", "bool"), ("startWithSAP", "uint")],
        &["Representation"],
    ),
    (
        "Representation",
        &[
            ("id!", "string"),
            ("bandwidth!", "uint"),
            ("mimeType!", "string"),
            ("codecs!", "string"),
            ("width", "uint"),
            ("height", "uint"),
            ("frameRate", "rate"),
            ("audioSamplingRate", "uint"),
        ],
        &["AudioChannelConfiguration", "SegmentTemplate"],
    ),
    ("AudioChannelConfiguration", &[("schemeIdUri!", "string"), ("value", "string")], &[]),
    (
        "SegmentTemplate",
        &[
            ("timescale", "uint"),
            ("presentationTimeOffset", "uint"),
            ("availabilityTimeOffset", "double"),
            ("availabilityTimeComplete", "bool"),
            ("startNumber", "uint"),
            ("media!", "string"),
            ("initialization!", "string"),
        ],
        &["SegmentTimeline"],
    ),
    ("SegmentTimeline", &[], &["S"]),
    ("S", &[("t", "uint"), ("d!", "uint"), ("r", "uint")], &[]),
    ("UTCTiming", &[("schemeIdUri!", "string"), ("value", "string")], &[]),
];

fn is_of(kind: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match kind {
        "uint" => digits(value),
        "double" => value.parse::<f64>().is_ok(),
        "bool" => ["true", "false"].contains(&value),
        "rate" => value.split('/').all(digits) && value.split('/').count() <= 2,
        "time" => value.ends_with('Z') && value.parse::<stream_manager_core::frame::WallTime>().is_ok(),
        "duration" => value.strip_prefix("PT").is_some_and(|rest| {
            let parts = rest.split_inclusive(|c: char| c.is_ascii_alphabetic());
            !rest.is_empty()
                && parts.into_iter().all(|part| {
                    let (number, unit) = part.split_at(part.len() - 1);
                    "HMS".contains(unit) && number.parse::<f64>().is_ok()
                })
        }),
        "string" => !value.is_empty(),
        exactly => value == exactly,
    }
}

/// Panics with what the schema does not allow.
pub fn check(element: &Element) {
    let (_, attributes, children) = RULES
        .iter()
        .find(|(name, ..)| *name == element.name)
        .unwrap_or_else(|| panic!("unexpected element {}", element.name));
    for (name, value) in element.attributes.iter().filter(|(name, _)| !name.starts_with("xmlns")) {
        let rule = attributes.iter().find(|(known, _)| known.trim_end_matches('!') == name);
        let (_, kind) = rule.unwrap_or_else(|| panic!("{} has no attribute {name}", element.name));
        assert!(is_of(kind, value), "{}@{name} is \"{value}\"; expected {kind}", element.name);
    }
    for name in attributes.iter().filter_map(|(name, _)| name.strip_suffix('!')) {
        assert!(element.attributes.contains_key(name), "{} lacks {name}", element.name);
    }
    let place = |child: &Element| {
        let place = children.iter().position(|name| *name == child.name);
        place.unwrap_or_else(|| panic!("{} has no child {}", element.name, child.name))
    };
    let places: Vec<usize> = element.children.iter().map(place).collect();
    assert!(places.is_sorted(), "the children of {} are not in their order", element.name);
    element.children.iter().for_each(check);
}

//! What is seen in a picture as ONVIF tells it: a `tt:MetadataStream` with a `tt:Frame` (ONVIF Analytics Service Specification, "Scene
//! description"; schema `http://www.onvif.org/ver10/schema`), for the metadata track of a stream.

use crate::detection::{Detection, Detections, Region};
use std::fmt::Write as _;

/// What ONVIF calls the classes that it knows (`tt:ObjectType`); others go by their own names alone.
const TYPES: [(&str, &str); 14] = [
    ("person", "Human"),
    ("face", "HumanFace"),
    ("bicycle", "Bicycle"),
    ("car", "Vehicle"),
    ("motorcycle", "Vehicle"),
    ("bus", "Vehicle"),
    ("truck", "Vehicle"),
    ("train", "Vehicle"),
    ("license plate", "LicensePlate"),
    ("bird", "Animal"),
    ("cat", "Animal"),
    ("dog", "Animal"),
    ("horse", "Animal"),
    ("cow", "Animal"),
];

/// A name as it may stand in XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Other control characters are none of XML 1.0.
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// One picture's document. ONVIF's coordinates go from -1 to 1, from left to right and from below up.
pub(super) fn document(seen: &Detections) -> String {
    let mut xml = String::with_capacity(512 + seen.detections.len() * 400);
    xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    xml.push_str("<tt:MetadataStream xmlns:tt=\"http://www.onvif.org/ver10/schema\"><tt:VideoAnalytics>");
    // Writing into a string cannot fail.
    let _ = write!(xml, "<tt:Frame UtcTime=\"{}\">", seen.time);
    for (number, detection) in (1u64..).zip(&seen.detections) {
        if let Some(place) = &detection.relative {
            object(&mut xml, number, detection, place);
        }
    }
    xml.push_str("</tt:Frame></tt:VideoAnalytics></tt:MetadataStream>");
    xml
}

fn object(xml: &mut String, number: u64, detection: &Detection, place: &Region) {
    let across = |x: f32| x.clamp(0.0, 1.0) * 2.0 - 1.0;
    let up = |y: f32| 1.0 - y.clamp(0.0, 1.0) * 2.0;
    // One that is not followed has no number that it keeps.
    let _ = write!(xml, "<tt:Object ObjectId=\"{}\"><tt:Appearance>", detection.track.unwrap_or(number));
    let _ = write!(
        xml,
        "<tt:Shape><tt:BoundingBox left=\"{:.4}\" top=\"{:.4}\" right=\"{:.4}\" bottom=\"{:.4}\"/>\
         <tt:CenterOfGravity x=\"{:.4}\" y=\"{:.4}\"/></tt:Shape>",
        across(place.x0),
        up(place.y0),
        across(place.x1),
        up(place.y1),
        across((place.x0 + place.x1) / 2.0),
        up((place.y0 + place.y1) / 2.0),
    );
    let known = TYPES.iter().find(|(label, _)| detection.label.eq_ignore_ascii_case(label));
    let _ = write!(xml, "<tt:Class>");
    for name in known.map(|(_, name)| (*name).to_owned()).into_iter().chain([escaped(&detection.label)]) {
        let _ = write!(xml, "<tt:Type Likelihood=\"{:.3}\">{name}</tt:Type>", detection.score);
    }
    xml.push_str("</tt:Class></tt:Appearance></tt:Object>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{MediaTime, WallTime};

    #[test]
    fn boxes_are_where_onvif_has_them() {
        let mut person =
            Detection::object("person".into(), 0, 0.5, Region::new(0.0, 0.0, 320.0, 90.0), 640, 360);
        person.track = Some(17);
        let odd = Detection::object("a<b & \"c\"".into(), 9, 1.0, Region::new(0.0, 0.0, 1.0, 1.0), 640, 360);
        let whole = Detection::class("day".into(), 1, 0.9);
        let time = WallTime::from_unix_nanos(1_700_000_000_123_000_000);
        let seen = Detections::new("m".into(), 640, 360, vec![person, odd, whole]).at(time, MediaTime::ZERO);
        let xml = document(&seen);
        assert!(xml.contains("<tt:Frame UtcTime=\"2023-11-14T22:13:20.123"), "{xml}");
        assert!(
            xml.contains(
                "<tt:Object ObjectId=\"17\"><tt:Appearance><tt:Shape><tt:BoundingBox left=\"-1.0000\" \
                 top=\"1.0000\" right=\"0.0000\" bottom=\"0.5000\"/><tt:CenterOfGravity x=\"-0.5000\" y=\"0.7500\"/>"
            ),
            "{xml}"
        );
        assert!(
            xml.contains(
                "<tt:Type Likelihood=\"0.500\">Human</tt:Type><tt:Type Likelihood=\"0.500\">person<"
            )
        );
        assert!(xml.contains(">a&lt;b &amp; &quot;c&quot;<"), "{xml}");
        // What a whole picture shows is no object.
        assert_eq!(xml.matches("<tt:Object ").count(), 2);
    }
}

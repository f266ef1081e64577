//! What a camera's notification means: its topic, and whether it has begun or ended.

use crate::event::{CameraWords, EventKind};
use oxvif::types::NotificationMessage;
use std::collections::HashMap;

/// States that are remembered of one camera.
const MAX_STATES: usize = 256;
/// Of the camera's own words so much is told.
const MAX_ITEMS: usize = 16;
const MAX_TEXT: usize = 256;

/// What is noticed, by what its topic has in it. The first that fits counts. From ONVIF's Analytics, Imaging and Device IO
/// specifications, and what is sold: cameras name their own rules as they like.
const KINDS: &[(&str, &str)] = &[
    ("peopledetect", "person"),
    ("facedetect", "face"),
    ("vehicledetect", "vehicle"),
    ("dogcatdetect", "animal"),
    ("visitor", "visitor"),
    ("package", "package"),
    ("tamper", "tampering"),
    ("globalscenechange", "tampering"),
    ("imagetooblurry", "tampering"),
    ("imagetoodark", "tampering"),
    ("imagetoobright", "tampering"),
    ("linedetector", "line_crossed"),
    ("fielddetector", "zone"),
    ("loitering", "zone"),
    ("detectedsound", "sound"),
    ("audioanalytics", "sound"),
    ("digitalinput", "input"),
    ("relay", "output"),
    ("motion", "motion"),
];

/// What says in a notification whether it goes on.
const STATES: &[&str] = &[
    "State",
    "IsMotion",
    "IsInside",
    "IsTamper",
    "IsSoundDetected",
    "LogicalState",
    "IsLoitering",
    "IsLineCrossed",
    "Value",
];

/// A topic, and where.
type Place = (String, CameraWords);

/// What is known of one camera.
#[derive(Default)]
pub(super) struct Notices {
    /// What goes on or does not, by topic and source, and what that is.
    states: HashMap<Place, (&'static str, bool)>,
}

impl Notices {
    /// What is to be told of this, if it is something new.
    pub(super) fn take(&mut self, message: NotificationMessage) -> Option<EventKind> {
        let topic: String = message.topic.chars().take(MAX_TEXT).collect();
        let what = kind_of(&topic);
        let active =
            STATES.iter().find_map(|name| message.data.get(*name)).and_then(|value| match value.trim() {
                "true" | "True" | "1" | "active" => Some(true),
                "false" | "False" | "0" | "inactive" => Some(false),
                _ => None,
            });
        let (source, data) = (bounded(message.source), bounded(message.data));
        let initial = message.property_operation == "Initialized";
        match active {
            Some(now) => {
                let key = (topic.clone(), source.clone());
                let before = self.states.get(&key).map(|(_, before)| *before);
                if before.is_some() || self.states.len() < MAX_STATES {
                    self.states.insert(key, (what, now));
                }
                // That nothing goes on is no news if it is the first that is heard of it.
                if before == Some(now) || (before.is_none() && !now && initial) {
                    return None;
                }
            }
            None if initial => return None,
            None => {}
        }
        Some(EventKind::CameraEvent { what, active, topic, source, data })
    }

    /// The camera is no longer heard: what went on is not known to go on.
    pub(super) fn forget(&mut self) -> Vec<EventKind> {
        let active = self.states.drain().filter(|(_, (_, active))| *active);
        active
            .map(|((topic, source), (what, _))| EventKind::CameraEvent {
                what,
                active: Some(false),
                topic,
                source,
                data: CameraWords::default(),
            })
            .collect()
    }
}

fn kind_of(topic: &str) -> &'static str {
    let topic = topic.to_ascii_lowercase();
    KINDS.iter().find(|(part, _)| topic.contains(part)).map_or("other", |(_, kind)| kind)
}

fn bounded(items: HashMap<String, String>) -> CameraWords {
    let short = |text: String| text.chars().take(MAX_TEXT).collect::<String>();
    CameraWords(items.into_iter().take(MAX_ITEMS).map(|(name, value)| (short(name), short(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, operation: &str, data: &[(&str, &str)]) -> NotificationMessage {
        NotificationMessage {
            topic: topic.into(),
            utc_time: String::new(),
            property_operation: operation.into(),
            source: HashMap::from([("VideoSourceToken".into(), "eye".into())]),
            data: data.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    fn told(event: Option<EventKind>) -> Option<(&'static str, Option<bool>)> {
        event.map(|event| match event {
            EventKind::CameraEvent { what, active, .. } => (what, active),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn changes_are_told_once() {
        const CELL: &str = "tns1:RuleEngine/CellMotionDetector/Motion";
        let mut notices = Notices::default();
        let mut take =
            |operation, value| told(notices.take(message(CELL, operation, &[("IsMotion", value)])));
        assert_eq!(take("Initialized", "false"), None);
        assert_eq!(take("Changed", "true"), Some(("motion", Some(true))));
        assert_eq!(take("Changed", "true"), None);
        assert_eq!(take("Changed", "false"), Some(("motion", Some(false))));
        assert_eq!(take("Changed", "1"), Some(("motion", Some(true))));
        let ended: Vec<_> = notices.forget().into_iter().map(|event| told(Some(event))).collect();
        assert_eq!(ended, [Some(("motion", Some(false)))]);
        assert!(notices.forget().is_empty());
        let begun = notices.take(message(CELL, "Initialized", &[("IsMotion", "true")]));
        assert_eq!(told(begun), Some(("motion", Some(true))));
    }

    #[test]
    fn topics_have_names() {
        let mut notices = Notices::default();
        for (topic, data, what, active) in [
            ("tns1:VideoSource/MotionAlarm", ("State", "true"), "motion", Some(true)),
            ("tns1:RuleEngine/TamperDetector/Tamper", ("IsTamper", "true"), "tampering", Some(true)),
            ("tns1:RuleEngine/LineDetector/Crossed", ("ObjectId", "5"), "line_crossed", None),
            ("tns1:Device/Trigger/DigitalInput", ("LogicalState", "true"), "input", Some(true)),
            ("tns1:RuleEngine/MyRuleDetector/PeopleDetect", ("State", "true"), "person", Some(true)),
            ("tns1:Monitoring/ProcessorUsage", ("Value", "12.5"), "other", None),
        ] {
            assert_eq!(
                told(notices.take(message(topic, "Changed", &[data]))),
                Some((what, active)),
                "{topic}"
            );
        }
        let crowd = (0..2000).map(|n| message(&format!("x/Motion{n}"), "Changed", &[("State", "true")]));
        crowd.for_each(|message| drop(notices.take(message)));
        assert!(notices.forget().len() <= MAX_STATES);
        let long = message(&"x".repeat(9000), "Changed", &[("State", &"y".repeat(9000))]);
        assert!(format!("{:?}", notices.take(long)).len() < 2000);
    }
}

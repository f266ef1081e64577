//! Patches of a stream's configuration, and what stands in them for something else.

use super::{Definition, ManagerError};
use crate::config::{Address, Password, StreamConfig};
use serde_json::Value;

/// Applies a JSON merge patch, RFC 7396, to a stream's configuration.
pub(super) fn patched(config: &StreamConfig, patch: &Value) -> Result<StreamConfig, ManagerError> {
    let invalid = |pointer: &str, problem: &str| ManagerError::Invalid {
        pointer: pointer.into(),
        problem: problem.into(),
    };
    if !patch.is_object() {
        return Err(invalid(
            "",
            "expected an object with the keys that change, such as {\"enabled\": false}",
        ));
    }
    if patch.get("id").is_some_and(|id| *id != config.id) {
        return Err(invalid("/id", "a stream's id cannot be changed; make a new stream and delete this one"));
    }
    if let Some(pointer) = find_array(patch) {
        return Err(invalid(&pointer, NO_ARRAY));
    }
    let mut value = serde_json::to_value(config).unwrap_or_default();
    merge_patch(&mut value, patch);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer_of(error.path());
        let problem = crate::config::explain(&error.into_inner().to_string());
        ManagerError::Invalid { pointer, problem }
    })
}

/// What is wrong with an array in a stream's configuration.
pub(crate) const NO_ARRAY: &str = "it is an array; expected something else here";

/// The only keys of a stream that are arrays.
const ARRAYS: [&str; 15] = [
    "/forward",
    "/hls/variants",
    "/inference/classes",
    "/inference/cascade",
    "/inference/lines",
    "/inference/masks",
    "/inference/motion/mask",
    "/inference/objects/classes",
    "/inference/objects/zones",
    "/inference/zones",
    "/recording/modes",
    "/recording/schedule",
    "/tracks",
    "/transcode",
    "/variants",
];

/// Those whose items are objects.
const OF_OBJECTS: [&str; 7] = [
    "/forward",
    "/inference/cascade",
    "/inference/lines",
    "/inference/masks",
    "/inference/zones",
    "/transcode",
    "/variants",
];

/// Where a value has an array that is none of the few that there are, as a JSON pointer: serde would take an array for an
/// object whose values come in its own order.
pub(crate) fn find_array(value: &Value) -> Option<String> {
    fn find(value: &Value, path: &str) -> Option<String> {
        match value {
            Value::Array(_) if !ARRAYS.contains(&path) => Some(path.to_owned()),
            Value::Array(items) if OF_OBJECTS.contains(&path) => {
                let item = items.iter().position(Value::is_array)?;
                Some(format!("{path}/{item}"))
            }
            Value::Object(object) => object.iter().find_map(|(key, value)| {
                find(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")))
            }),
            _ => None,
        }
    }
    find(value, "")
}

/// The place of an error as a JSON pointer, RFC 6901.
pub(crate) fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    };
    path.iter().map(part).collect()
}

/// RFC 7396 section 2.
pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge_patch(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Answers show `***` instead of a password. Sent back like that it stands for the one that is known.
pub(super) fn restore_password(
    config: &mut StreamConfig,
    old: Option<&Definition>,
) -> Result<(), ManagerError> {
    let old = old.map(|old| &old.config);
    restore_in(&mut config.source_url, old.map(|old| &*old.source_url), "/source_url")?;
    if config.password.as_ref().is_some_and(Password::is_hidden) {
        // Of the same user at the same camera: else it would go to whoever asks for it.
        let place = |config: &StreamConfig| {
            let url = url::Url::parse(&config.source_url).ok();
            (config.user.clone(), url.map(|url| (url.host_str().map(str::to_owned), url.port())))
        };
        let known = old.filter(|old| place(old) == place(config)).and_then(|old| old.password.clone());
        config.password = Some(known.ok_or_else(|| not_known("/password"))?);
    }
    if let Some(url) = &mut config.inference.source_url {
        // The smaller stream's password may also be known as the stream's own.
        let known = old.and_then(|old| old.inference.source_url.as_deref().or(Some(&old.source_url)));
        restore_in(url, known, "/inference/source_url")?;
    }
    if let Some(url) = &mut config.fallback.url {
        let known = old.and_then(|old| old.fallback.url.as_deref());
        restore_in(url, known, "/fallback/url")?;
    }
    if config.onvif.password.as_ref().is_some_and(Password::is_hidden) {
        // As above: of the same user at the same place.
        let host = |config: &StreamConfig| {
            url::Url::parse(&config.source_url).ok().and_then(|url| url.host_str().map(str::to_owned))
        };
        let known = old.filter(|old| {
            let same = old.onvif.user == config.onvif.user && old.onvif.url == config.onvif.url;
            same && (old.onvif.url.is_some() || host(old) == host(config))
        });
        config.onvif.password = Some(
            known.and_then(|old| old.onvif.password.clone()).ok_or_else(|| not_known("/onvif/password"))?,
        );
    }
    for (index, variant) in config.variants.iter_mut().enumerate() {
        // Its password may also be known as the stream's own.
        let known = old.map(|old| {
            let same = old.variants.iter().find(|known| known.name == variant.name);
            same.map_or(&old.source_url, |known| &known.source_url).as_ref()
        });
        restore_in(&mut variant.source_url, known, &format!("/variants/{index}/source_url"))?;
    }
    for (index, forward) in config.forward.iter_mut().enumerate() {
        let same = |known: &&crate::config::ForwardConfig| known.url.shown_as_forward() == *forward.url;
        if let Some(known) = old.and_then(|old| old.forward.iter().find(same)) {
            forward.url.clone_from(&known.url);
        } else {
            restore_in(&mut forward.url, None, &format!("/forward/{index}/url"))?;
        }
    }
    Ok(())
}

fn restore_in(address: &mut Address, old: Option<&str>, pointer: &str) -> Result<(), ManagerError> {
    if !address.contains("***") {
        return Ok(());
    }
    if let Some(old) = old
        && crate::error::redact_url(old) == **address
    {
        *address = old.into();
        return Ok(());
    }
    let known = old.and_then(|old| url::Url::parse(old).ok());
    if let (Some(known), Ok(mut url)) = (known, url::Url::parse(address))
        && (known.host_str(), known.port(), known.username()) == (url.host_str(), url.port(), url.username())
        && url.set_password(known.password()).is_ok()
    {
        *address = String::from(url).into();
        return Ok(());
    }
    Err(not_known(pointer))
}

fn not_known(pointer: &str) -> ManagerError {
    ManagerError::Invalid {
        pointer: pointer.into(),
        problem: "*** stands for a password that is known already, and there is none for this user at this address; \
                  expected the password"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::WallTime;
    use crate::manager::Origin;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn merge_patches_as_the_rfc_has_them() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target;
            merge_patch(&mut merged, &patch);
            assert_eq!(merged, result);
        }
    }

    #[test]
    fn a_hidden_password_stands_for_the_known_one() {
        let now = WallTime::now();
        let old = Definition {
            config: StreamConfig::new("a", "rtsp://u:geheim@10.0.0.1/one"),
            origin: Origin::Api,
            revision: 1,
            created: now,
            changed: now,
            order: 0,
        };
        for (url, restored) in [
            ("rtsp://u:***@10.0.0.1/one", Some("rtsp://u:geheim@10.0.0.1/one")),
            ("rtsp://u:***@10.0.0.1/two", Some("rtsp://u:geheim@10.0.0.1/two")),
            ("rtsp://u:new@10.0.0.1/two", Some("rtsp://u:new@10.0.0.1/two")),
            // Never to another host: that would hand the password out.
            ("rtsp://u:***@10.0.0.2/one", None),
            ("rtsp://other:***@10.0.0.1/one", None),
        ] {
            let mut config = StreamConfig::new("a", url);
            let result = restore_password(&mut config, Some(&old));
            assert_eq!(result.is_ok().then_some(&*config.source_url), restored, "{url}");
        }
        assert!(restore_password(&mut StreamConfig::new("a", "rtsp://u:***@h/"), None).is_err());
    }
}

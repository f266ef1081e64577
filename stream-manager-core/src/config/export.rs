//! Writing a configuration as a file again.

use super::Config;
use serde_json::Value;

impl Config {
    /// As TOML: everything that differs from the defaults, and the streams. Passwords are in it only with `secrets`,
    /// and shown as `***` otherwise.
    ///
    /// ```
    /// # use stream_manager_core::config::Config;
    /// let text = "[server]\nmax_connects = 4\n\n[[streams]]\nid = \"a\"\nsource_url = \"rtsp://u:p@h/x\"\n";
    /// let config = Config::from_toml(text).unwrap();
    /// assert_eq!(config.to_toml(true), text);
    /// assert!(config.to_toml(false).contains("rtsp://u:***@h/x"));
    /// ```
    pub fn to_toml(&self, secrets: bool) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        let default = serde_json::to_value(Self::default()).unwrap_or_default();
        without(&mut value, &default);
        for (index, stream) in self.streams.iter().enumerate().filter(|_| !secrets) {
            value["streams"][index] = serde_json::to_value(stream.shown()).unwrap_or_default();
        }
        if secrets {
            for (index, user) in self.auth.users.iter().enumerate() {
                value["auth"]["users"][index]["password"] = user.password.reveal().into();
            }
            if let Some(otlp) = &self.telemetry.otlp {
                value["telemetry"]["otlp"]["endpoint"] = otlp.endpoint.reveal().into();
                for (name, header) in &otlp.headers {
                    value["telemetry"]["otlp"]["headers"][name] = header.reveal().into();
                }
            }
            if let Some(callback) = &self.auth.callback {
                value["auth"]["callback"]["url"] = callback.url.reveal().into();
            }
            for (index, hook) in self.hooks.webhooks.iter().enumerate() {
                value["hooks"]["webhooks"][index]["url"] = hook.url.reveal().into();
                if let Some(secret) = &hook.secret {
                    value["hooks"]["webhooks"][index]["secret"] = secret.reveal().into();
                }
            }
            if let Some(mqtt) = &self.hooks.mqtt {
                value["hooks"]["mqtt"]["url"] = mqtt.url.reveal().into();
            }
            if let Some(password) = self.hooks.mqtt.as_ref().and_then(|m| m.password.as_ref()) {
                value["hooks"]["mqtt"]["password"] = password.reveal().into();
            }
        }
        // Streams are last: they may be many.
        let streams = value.as_object_mut().and_then(|o| o.remove("streams"));
        let head = toml::to_string(&value).unwrap_or_default();
        let tail = streams.map(|streams| serde_json::json!({ "streams": streams }));
        let tail = tail.and_then(|tail| toml::to_string(&tail).ok()).unwrap_or_default();
        let between = if head.is_empty() || tail.is_empty() { "" } else { "\n" };
        format!("{head}{between}{tail}")
    }
}

/// Takes out what is the same in both.
fn without(value: &mut Value, default: &Value) {
    let (Value::Object(object), Value::Object(default)) = (value, default) else { return };
    object.retain(|key, value| match default.get(key) {
        Some(same) if same == value => false,
        Some(default @ Value::Object(_)) => {
            without(value, default);
            value.as_object().is_none_or(|o| !o.is_empty())
        }
        _ => !value.is_null(),
    });
}

//! `[inference]`, and what a stream asks of a model.

use super::model::ModelSpec;
use super::scene::{
    CascadeConfig, LineConfig, MaskConfig, ObjectsConfig, SceneSettings, TrackingConfig, ZoneConfig,
};
use super::{Address, DurationText, units};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[inference]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InferenceConfig {
    /// ONNX Runtime's shared library; looked for in the usual places if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<PathBuf>,
    /// Where engines that were built for a GPU are kept; `engines` in `data_dir` if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_dir: Option<PathBuf>,
    /// The models.
    pub models: Vec<ModelSpec>,
}

impl InferenceConfig {
    /// What is wrong with it: the key, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let mut names = std::collections::HashSet::new();
        for (index, model) in self.models.iter().enumerate() {
            let key = |problem: String| format!("inference.models[{index}].{problem}");
            model.check().map_err(key)?;
            if !names.insert(model.name()) {
                return Err(key(format!("name: \"{}\" is an earlier model's already", model.name())));
            }
        }
        Ok(())
    }
}

/// How important a stream is when several wait for one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A quarter of the turns.
    Low,
    /// Turn by turn.
    #[default]
    Normal,
    /// Four turns.
    High,
}

/// `[defaults.inference]` and `[streams.inference]`: what is asked of a model. What is not set is as in the defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StreamInferenceConfig {
    /// Whether the stream is analysed from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The model, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Pictures analysed in a second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fps: Option<f64>,
    /// How important it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// The lowest score that counts, if not the model's.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: Option<f32>,
    /// The classes that count; the model's if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// The camera's smaller stream, which is decoded instead of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^((rtsps?|https?|file|test)://.+|gst:.+)$"))]
    pub source_url: Option<Address>,
    /// Which of the stream's variants is decoded instead of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Whether there is a stream `<id>/annotated` with what is seen drawn into the picture; by default where it is analysed from the start,
    /// or a model is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotated: Option<bool>,
    /// Whether what is seen goes along as a track of ONVIF metadata, for players by RTSP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_track: Option<bool>,
    /// How often the same objects become an event again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_interval: Option<DurationText>,
    /// When a picture is worth analysing.
    #[serde(skip_serializing_if = "MotionConfig::is_empty")]
    pub motion: MotionConfig,
    /// How objects are followed.
    #[serde(skip_serializing_if = "TrackingConfig::is_empty")]
    pub tracking: TrackingConfig,
    /// Which of them become events.
    #[serde(skip_serializing_if = "ObjectsConfig::is_empty")]
    pub objects: ObjectsConfig,
    /// Parts of the picture that mean something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<ZoneConfig>>,
    /// Lines that are crossed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<LineConfig>>,
    /// Parts of the picture in which objects do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<Vec<MaskConfig>>,
    /// Classifiers that look at objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Vec<CascadeConfig>>,
}

impl StreamInferenceConfig {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Part of the picture: x0, y0, x1, y1, each 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Mask(pub [f32; 4]);

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let corners = <[f32; 4]>::deserialize(deserializer)?;
        match corners.iter().find(|corner| !units::is_part(**corner)) {
            Some(corner) => Err(serde::de::Error::custom(format!("it is {corner}; expected 0 to 1"))),
            None => Ok(Self(corners)),
        }
    }
}

impl JsonSchema for Mask {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mask".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "array",
            "description": "Part of the picture: x0, y0, x1, y1, each 0 to 1",
            "items": {"type": "number", "minimum": 0.0, "maximum": 1.0},
            "minItems": 4,
            "maxItems": 4
        })
    }
}

/// `[streams.inference.motion]`: pictures in which nothing has moved are not analysed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MotionConfig {
    /// Whether motion is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How much of the picture has to change, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "units::optional_part")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub area: Option<f32>,
    /// By how much a place has to change, 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<u8>,
    /// How long pictures are analysed after the last motion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<DurationText>,
    /// Parts of the picture that do not count: x0, y0, x1, y1, each 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Vec<Mask>>,
}

impl MotionConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a stream asks of a model, with everything that it leaves to the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalysisSettings {
    /// Whether the stream is analysed from the start.
    pub enabled: bool,
    /// The model; the only one there is if not set.
    pub model: Option<String>,
    /// Pictures in a second at most.
    pub max_fps: f64,
    /// How important it is.
    pub priority: Priority,
    /// The lowest score that counts.
    pub threshold: Option<f32>,
    /// The classes that count.
    pub classes: Vec<String>,
    /// What is decoded instead.
    pub source_url: Option<Address>,
    /// Which of the stream's variants is decoded instead.
    pub variant: Option<String>,
    /// Whether there is a stream `<id>/annotated`; where it is analysed from the start, or a model is named, if not set.
    pub annotated: Option<bool>,
    /// Whether there is a track of ONVIF metadata.
    pub metadata_track: bool,
    /// How often the same objects become an event again.
    pub event_interval: Duration,
    /// When a picture is worth analysing; always if not set.
    pub motion: Option<MotionSettings>,
    /// What is made of what is seen.
    pub scene: SceneSettings,
}

impl Default for AnalysisSettings {
    fn default() -> Self {
        StreamInferenceConfig::default().resolve(&StreamInferenceConfig::default())
    }
}

/// When a picture is worth analysing.
#[derive(Clone, Debug, PartialEq)]
pub struct MotionSettings {
    /// How much of the picture has to change, 0 to 1.
    pub area: f32,
    /// By how much a place has to change, 0 to 255.
    pub contrast: u8,
    /// How long pictures are analysed after the last motion.
    pub hold: Duration,
    /// Parts that do not count: x0, y0, x1, y1, each 0 to 1.
    pub mask: Vec<[f32; 4]>,
}

impl Default for MotionSettings {
    fn default() -> Self {
        Self { area: 0.002, contrast: 20, hold: Duration::from_secs(2), mask: Vec::new() }
    }
}

impl StreamInferenceConfig {
    /// Fills in what it leaves to the defaults.
    pub fn resolve(&self, defaults: &Self) -> AnalysisSettings {
        let motion = (&self.motion, &defaults.motion);
        let (own, common) = motion;
        let standard = MotionSettings::default();
        let enabled = own.enabled.or(common.enabled).unwrap_or(false);
        let pick = |own: Option<DurationText>, common: Option<DurationText>, other| {
            own.or(common).map_or(other, |d: DurationText| d.0)
        };
        AnalysisSettings {
            enabled: self.enabled.or(defaults.enabled).unwrap_or(false),
            model: self.model.clone().or_else(|| defaults.model.clone()),
            annotated: self.annotated.or(defaults.annotated),
            metadata_track: self.metadata_track.or(defaults.metadata_track).unwrap_or(false),
            max_fps: self.max_fps.or(defaults.max_fps).unwrap_or(5.0),
            priority: self.priority.or(defaults.priority).unwrap_or_default(),
            threshold: self.threshold.or(defaults.threshold),
            classes: self.classes.clone().or_else(|| defaults.classes.clone()).unwrap_or_default(),
            source_url: self.source_url.clone(),
            variant: self.variant.clone(),
            event_interval: pick(self.event_interval, defaults.event_interval, Duration::from_secs(10)),
            motion: enabled.then(|| MotionSettings {
                area: own.area.or(common.area).unwrap_or(standard.area),
                contrast: own.contrast.or(common.contrast).unwrap_or(standard.contrast),
                hold: pick(own.hold, common.hold, standard.hold),
                mask: own
                    .mask
                    .as_ref()
                    .or(common.mask.as_ref())
                    .map(|all| all.iter().map(|m| m.0).collect())
                    .unwrap_or_default(),
            }),
            scene: SceneSettings {
                tracking: self.tracking.resolve(&defaults.tracking),
                objects: self.objects.resolve(&defaults.objects),
                zones: pick_list(&self.zones, &defaults.zones),
                lines: pick_list(&self.lines, &defaults.lines),
                masks: pick_list(&self.masks, &defaults.masks),
                cascade: pick_list(&self.cascade, &defaults.cascade),
            },
        }
    }
}

fn pick_list<T: Clone>(own: &Option<Vec<T>>, common: &Option<Vec<T>>) -> Vec<T> {
    own.as_ref().or(common.as_ref()).cloned().unwrap_or_default()
}

impl AnalysisSettings {
    /// Whether there is a stream with what is seen drawn into the picture.
    pub fn is_annotated(&self) -> bool {
        self.annotated.unwrap_or(self.enabled || self.model.is_some())
    }

    /// What is wrong with it: the key, and what would be right.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(self.max_fps > 0.0 && self.max_fps <= 1000.0) {
            return Err((
                "inference/max_fps",
                format!("it is {}; expected more than 0, up to 1000", self.max_fps),
            ));
        }
        if let Some(threshold) = self.threshold.filter(|t| !units::is_part(*t)) {
            return Err(("inference/threshold", format!("it is {threshold}; expected 0 to 1")));
        }
        self.scene.check()?;
        let Some(motion) = &self.motion else { return Ok(()) };
        if !units::is_part(motion.area) {
            return Err(("inference/motion/area", format!("it is {}; expected 0 to 1", motion.area)));
        }
        let wrong = |m: &&[f32; 4]| !m.iter().all(|v| units::is_part(*v)) || m[0] >= m[2] || m[1] >= m[3];
        match motion.mask.iter().find(wrong) {
            Some(mask) => Err((
                "inference/motion/mask",
                format!(
                    "{mask:?} is no part of the picture; expected [x0, y0, x1, y1], each 0 to 1, x0 < x1, y0 < y1"
                ),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_fill_in_from_the_defaults() {
        let text = "enabled = true\nmodel = 'a'\nmax_fps = 2\n[motion]\nenabled = true\narea = 0.1\n";
        let defaults: StreamInferenceConfig = toml::from_str(text).unwrap();
        let own: StreamInferenceConfig = toml::from_str("max_fps = 7.5\n[motion]\ncontrast = 9\n").unwrap();
        let settings = own.resolve(&defaults);
        assert_eq!((settings.enabled, settings.max_fps, settings.model.as_deref()), (true, 7.5, Some("a")));
        let motion = settings.motion.unwrap();
        assert_eq!((motion.area, motion.contrast), (0.1, 9));
        let zero = AnalysisSettings { max_fps: 0.0, ..AnalysisSettings::default() };
        assert_eq!(zero.check().unwrap_err().0, "inference/max_fps");
    }
}

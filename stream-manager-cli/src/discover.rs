//! Devices on the network, and what to write into the configuration for them.

use crate::args::DiscoverArgs;
use crate::{exit, output};
use stream_manager_core::config::Config;
use stream_manager_core::onvif::{Discovery, FoundDevice};

pub(crate) async fn run(args: DiscoverArgs) -> u8 {
    if let Err(problem) = output::start_plain_log(&args.log) {
        output::error(&problem);
        return exit::USAGE;
    }
    let mut discovery = Discovery::new().timeout(args.timeout.0);
    discovery = args.addresses.iter().fold(discovery, Discovery::address);
    if let Some(user) = args.user {
        discovery = discovery.credentials(user, args.password.unwrap_or_default());
    }
    match discovery.run().await {
        Ok(devices) if args.json => {
            output::line(&serde_json::to_string_pretty(&devices).unwrap_or_default());
            0
        }
        Ok(devices) => {
            devices.iter().for_each(print);
            if devices.is_empty() {
                output::note("no device has answered");
            }
            0
        }
        Err(error) => {
            output::error(&error.to_string());
            exit::SOURCE
        }
    }
}

/// What is no configuration is a comment, so that all of it can go into a file.
fn print(device: &FoundDevice) {
    let mut about: Vec<&str> = [&device.name, &device.hardware, &device.location]
        .into_iter()
        .filter_map(|text| text.as_deref())
        .collect();
    about.dedup();
    output::line(&format!("# {}  {}", device.url, about.join(", ")).trim_end().replace('\n', " "));
    if let Some(problem) = &device.problem {
        output::line(&format!("#   {}", problem.replace('\n', " ")));
    }
    let Some(report) = &device.report else { return };
    let made = format!("#   {} {}, firmware {}", report.manufacturer, report.model, report.firmware);
    output::line(&made.replace('\n', " "));
    for profile in &report.profiles {
        let size = profile.width.zip(profile.height).map(|(width, height)| format!("{width}x{height}"));
        let rate = profile.frame_rate.map(|rate| format!("{rate} fps"));
        let bits = profile.bitrate_kbps.map(|kbit| format!("{kbit} kbit/s"));
        let parts: Vec<String> = [profile.codec.clone(), size, rate, bits].into_iter().flatten().collect();
        output::line(&format!("#   {}: {}", profile.name, parts.join(", ")).replace('\n', " "));
    }
    if report.streams.iter().any(|stream| stream.user.is_some()) {
        output::line("# The password goes beside the user: password = \"…\"");
    }
    let config = Config { streams: report.streams.clone(), ..Config::default() };
    output::line(&config.to_toml(true));
}

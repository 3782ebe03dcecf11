//! `events`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use futures_util::StreamExt as _;
use hoist::engine::{EngineEvent, EventAction};
use hoist::model::labels;
use hoist::ops::{self, EventsOptions, OpsError};
use jiff::Timestamp;

use super::super::render::{out, text};
use super::super::session::{self, NO_LOGS, Need};
use super::translate;
use super::{Exit, Settings, Verb};

/// Follow what happens to the containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Not before this time or duration ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after this time or duration ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Args {
    fn options(&self, now: Timestamp) -> anyhow::Result<EventsOptions> {
        let moment = |word: &Option<String>| word.as_deref().map(|w| translate::moment(w, now)).transpose();
        Ok(EventsOptions {
            services: self.services.clone(),
            since: moment(&self.since)?,
            until: moment(&self.until)?,
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(Timestamp::now())?;
        session::run(&settings, Need::ProjectOrName(&options.services), NO_LOGS, async |session| {
            let mut events = ops::events(&session.context, &options).await?;
            let interrupted = &session.context.interrupt.first;
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(event) => {
                            let event = event.map_err(OpsError::from)?;
                            out::print(&if self.json { json(&event)? } else { line(&event) })?;
                        }
                        None => return Ok(Exit::Success),
                    },
                    () = interrupted.cancelled() => return Err(OpsError::Interrupted.into()),
                }
            }
        })
    }
}

/// The event's word and its own attributes, as Docker names them.
fn action(event: &EngineEvent) -> (String, BTreeMap<String, String>) {
    let mut attributes: BTreeMap<String, String> = event
        .labels
        .iter()
        .filter(|(key, _)| !key.starts_with("com.docker.compose."))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    attributes.insert("image".into(), event.image.clone());
    attributes.insert("name".into(), event.name.clone());
    let word = match &event.action {
        EventAction::Create => "create".into(),
        EventAction::Start => "start".into(),
        EventAction::Die { exit_code, .. } => {
            attributes.insert("exitCode".into(), exit_code.to_string());
            "die".into()
        }
        EventAction::Oom => "oom".into(),
        EventAction::Stop => "stop".into(),
        EventAction::Kill { signal } => {
            attributes.insert("signal".into(), signal.to_string());
            "kill".into()
        }
        EventAction::Pause => "pause".into(),
        EventAction::Unpause => "unpause".into(),
        EventAction::Restart => "restart".into(),
        EventAction::Rename => "rename".into(),
        EventAction::Destroy => "destroy".into(),
        EventAction::HealthStatus { health } => format!("health_status: {}", health.as_str()),
        EventAction::ExecStart { command } => format!("exec_start: {command}"),
        EventAction::ExecDie { exit_code } => {
            attributes.insert("exitCode".into(), exit_code.to_string());
            "exec_die".into()
        }
    };
    (word, attributes)
}

fn line(event: &EngineEvent) -> String {
    let (word, attributes) = action(event);
    let attributes: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let time = event.time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S.%6f");
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{time} container {word} {} ({})", event.id, attributes.join(", "));
    text
}

fn json(event: &EngineEvent) -> anyhow::Result<String> {
    let (word, attributes) = action(event);
    let object = serde_json::json!({
        "action": word,
        "attributes": attributes,
        "id": event.id,
        "service": event.labels.get(labels::SERVICE).cloned().unwrap_or_default(),
        "time": text::rfc3339_nano(event.time),
        "type": "container",
    });
    Ok(format!("{}\n", serde_json::to_string(&object)?))
}

//! What instructions do to an image's config, and the text they leave in its history.
//!
//! The texts are BuildKit's to the letter: tools compare and parse them.
//!
//! # Source
//! Observed of BuildKit in Docker Engine 28 (`docker history --no-trunc`).

use std::fmt::Write as _;

use jiff::Timestamp;

use super::dockerfile::ast::{Command, Healthcheck};
use crate::runtime::image::{Empty, Healthcheck as Probe, History, ImageConfig, RunConfig};

/// What stands in the comment of each entry.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// `PATH` of an image whose base sets none.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Adds an entry to the history. `layer`: when its layer was made; none for an entry without one.
pub(super) fn remember(image: &mut ImageConfig, text: String, layer: Option<Timestamp>) {
    image.history.push(History {
        created: layer,
        created_by: text,
        author: String::new(),
        comment: COMMENT.to_owned(),
        empty_layer: layer.is_none(),
    });
}

/// Gives entries without a layer the time of the layer before them (after them for the first ones),
/// as BuildKit does, and the image the time of the last. `inherited`: entries of the base image.
pub(super) fn date(image: &mut ImageConfig, inherited: usize, epoch: Option<Timestamp>, now: Timestamp) {
    let own = image.history.get_mut(inherited..).unwrap_or_default();
    let first = own.iter().find_map(|entry| entry.created.filter(|_| !entry.empty_layer));
    let mut time = epoch.or(first).or(image.created.filter(|_| inherited > 0)).unwrap_or(now);
    for entry in own {
        if let (Some(layer), None) = (entry.created.filter(|_| !entry.empty_layer), epoch) {
            time = layer;
        }
        entry.created = Some(time);
    }
    image.created = Some(time);
}

/// The words that run a shell line.
pub(super) fn with_shell(config: &RunConfig, line: &str) -> Vec<String> {
    let mut words = if config.shell.is_empty() {
        vec!["/bin/sh".to_owned(), "-c".to_owned()]
    } else {
        config.shell.clone()
    };
    words.push(line.to_owned());
    words
}

fn words(config: &RunConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(line) => with_shell(config, line),
    }
}

/// `CMD`.
pub(super) fn cmd(image: &mut ImageConfig, command: &Command) {
    image.config.cmd = words(&image.config, command);
    image.config.args_escaped = true;
    let text = format!("CMD {}", quoted_list(&image.config.cmd));
    remember(image, text, None);
}

/// `ENTRYPOINT`; the command of the base image goes unless this stage has set one.
pub(super) fn entrypoint(image: &mut ImageConfig, command: &Command, own_cmd: bool) {
    image.config.entrypoint = words(&image.config, command);
    if !own_cmd {
        image.config.cmd.clear();
    }
    let text = format!("ENTRYPOINT {}", quoted_list(&image.config.entrypoint));
    remember(image, text, None);
}

/// `ENV`, expanded.
pub(super) fn env(image: &mut ImageConfig, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        set_env(&mut image.config.env, key, value);
    }
    remember(image, format!("ENV {}", joined_pairs(pairs)), None);
}

/// Sets a variable where it stands, or at the end.
pub(super) fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(key)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// `LABEL`, expanded.
pub(super) fn label(image: &mut ImageConfig, pairs: &[(String, String)]) {
    image.config.labels.extend(pairs.iter().cloned());
    remember(image, format!("LABEL {}", joined_pairs(pairs)), None);
}

/// `EXPOSE`: ports as `80/tcp`.
pub(super) fn expose(image: &mut ImageConfig, ports: &[String]) {
    let mut ports = ports.to_vec();
    ports.sort();
    image.config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), Empty {})));
    remember(image, format!("EXPOSE [{}]", ports.join(" ")), None);
}

/// `VOLUME`, expanded.
pub(super) fn volume(image: &mut ImageConfig, paths: &[String]) {
    image.config.volumes.extend(paths.iter().map(|path| (path.clone(), Empty {})));
    remember(image, format!("VOLUME [{}]", paths.join(" ")), None);
}

/// `USER`, expanded.
pub(super) fn user(image: &mut ImageConfig, user: &str) {
    user.clone_into(&mut image.config.user);
    remember(image, format!("USER {user}"), None);
}

/// `STOPSIGNAL`, expanded.
pub(super) fn stop_signal(image: &mut ImageConfig, signal: &str) {
    signal.clone_into(&mut image.config.stop_signal);
    remember(image, format!("STOPSIGNAL {signal}"), None);
}

/// `SHELL`.
pub(super) fn shell(image: &mut ImageConfig, shell: &[String]) {
    image.config.shell = shell.to_vec();
    remember(image, format!("SHELL [{}]", shell.join(" ")), None);
}

/// `MAINTAINER`.
pub(super) fn maintainer(image: &mut ImageConfig, text: &str) {
    text.clone_into(&mut image.author);
    remember(image, format!("MAINTAINER {text}"), None);
}

/// `HEALTHCHECK`.
pub(super) fn healthcheck(image: &mut ImageConfig, check: &Healthcheck) {
    let nanos = |time: &std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let probe = match check {
        Healthcheck::None => Probe { test: vec!["NONE".to_owned()], ..Probe::default() },
        Healthcheck::Test { command, interval, timeout, start_period, start_interval, retries } => {
            let test = match command {
                Command::Exec(words) => {
                    std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
                }
                Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            };
            Probe {
                test,
                interval: nanos(interval),
                timeout: nanos(timeout),
                start_period: nanos(start_period),
                start_interval: nanos(start_interval),
                retries: i64::from(*retries),
            }
        }
    };
    let text = format!(
        "HEALTHCHECK &{{{} {} {} {} {} {}}}",
        quoted_list(&probe.test),
        quoted(&go_duration(probe.interval)),
        quoted(&go_duration(probe.timeout)),
        quoted(&go_duration(probe.start_period)),
        quoted(&go_duration(probe.start_interval)),
        quoted_number(probe.retries),
    );
    image.config.healthcheck = Some(probe);
    remember(image, text, None);
}

fn joined_pairs(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

/// As Go prints a list of strings with `%q`.
fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// As Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            other => push_escaped(&mut out, other),
        }
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if (c as u32) < 0x20 || c == '\u{7f}' => {
            write!(out, "\\x{:02x}", c as u32).expect("a String takes all");
        }
        c if c.is_control() => write!(out, "\\u{:04x}", c as u32).expect("a String takes all"),
        c => out.push(c),
    }
}

/// As Go prints a number with `%q`: the character of that number.
fn quoted_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let mut out = String::from("'");
    if c == '\'' {
        out.push_str("\\'");
    } else {
        push_escaped(&mut out, c);
    }
    out.push('\'');
    out
}

/// As Go prints a duration: `1m30s`, `1.5s`, `100ms`, `0s`.
fn go_duration(nanos: i64) -> String {
    let fraction = |value: i64, unit: i64| {
        let text = format!("{:09}", value % unit * (1_000_000_000 / unit));
        let text = text.trim_end_matches('0');
        if text.is_empty() { (value / unit).to_string() } else { format!("{}.{text}", value / unit) }
    };
    match nanos {
        0 => "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}µs", fraction(n, 1_000)),
        n if n < 1_000_000_000 => format!("{}ms", fraction(n, 1_000_000)),
        n => {
            let seconds = n / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = fraction(n % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{rest}s"),
                (0, _) => format!("{minutes}m{rest}s"),
                _ => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn texts(image: &ImageConfig) -> Vec<&str> {
        image.history.iter().map(|entry| entry.created_by.as_str()).collect()
    }

    #[test]
    fn history_reads_as_buildkits() {
        let mut image = ImageConfig::default();
        env(&mut image, &[("A".into(), "b".into()), ("C".into(), "d e".into())]);
        expose(&mut image, &["80/tcp".into(), "53/udp".into()]);
        volume(&mut image, &["/v".into(), "/w".into()]);
        entrypoint(&mut image, &Command::Exec(vec!["/bin/sh".into()]), false);
        cmd(&mut image, &Command::Shell("echo \"hi\"\t\u{1}".into()));
        shell(&mut image, &["/bin/sh".into(), "-ec".into()]);
        let check = Healthcheck::Test {
            command: Command::Shell("true".into()),
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(90_500),
            start_period: Duration::ZERO,
            start_interval: Duration::from_millis(100),
            retries: 3,
        };
        healthcheck(&mut image, &check);
        assert_eq!(
            texts(&image),
            [
                "ENV A=b C=d e",
                "EXPOSE [53/udp 80/tcp]",
                "VOLUME [/v /w]",
                "ENTRYPOINT [\"/bin/sh\"]",
                "CMD [\"/bin/sh\" \"-c\" \"echo \\\"hi\\\"\\t\\x01\"]",
                "SHELL [/bin/sh -ec]",
                "HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"5s\" \"1m30.5s\" \"0s\" \"100ms\" '\\x03'}",
            ]
        );
    }

    #[test]
    fn a_new_entrypoint_drops_the_command_of_the_base_only() {
        let mut image = ImageConfig::default();
        image.config.cmd = vec!["base".into()];
        entrypoint(&mut image, &Command::Exec(vec!["e".into()]), false);
        assert!(image.config.cmd.is_empty());
        cmd(&mut image, &Command::Exec(vec!["own".into()]));
        entrypoint(&mut image, &Command::Exec(vec!["e2".into()]), true);
        assert_eq!(image.config.cmd, ["own"]);
    }

    #[test]
    fn entries_without_a_layer_bear_the_time_of_a_layer() {
        let time = |second| Timestamp::from_second(second).unwrap();
        let mut image = ImageConfig { created: Some(time(1)), ..ImageConfig::default() };
        image.history.push(History { created: Some(time(1)), ..History::default() });
        remember(&mut image, "ENV".into(), None);
        remember(&mut image, "RUN".into(), Some(time(10)));
        remember(&mut image, "CMD".into(), None);
        remember(&mut image, "RUN".into(), Some(time(20)));
        let mut dated = image.clone();
        date(&mut dated, 1, None, time(99));
        let times: Vec<_> = dated.history.iter().map(|e| e.created.unwrap().as_second()).collect();
        assert_eq!(times, [1, 10, 10, 10, 20]);
        assert_eq!(dated.created, Some(time(20)));
        date(&mut image, 1, Some(time(5)), time(99));
        assert_eq!(image.history[4].created, Some(time(5)));
        assert_eq!(image.created, Some(time(5)));
    }
}

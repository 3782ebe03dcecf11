//! Errors on stderr: once, with their causes and a hint.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;

use hoist::engine::{BuildFailure, EngineError};
use hoist::ops::{FailureCause, FailureReport, OpsError};

use super::exit::Exit;
use super::load::Mistakes;
use super::render::out;
use super::render::text::human_duration;

/// Prints an error and gives the exit code it stands for.
///
/// With `json` it is one object on a line, as programs that asked for JSON progress expect.
pub(crate) fn error(error: &anyhow::Error, json: bool, color: bool) -> Exit {
    // Whoever read our output has enough of it; `sh` shows this for a process that SIGPIPE ended.
    if error.chain().any(is_broken_pipe) {
        return Exit::Process(141);
    }
    let exit = match error.downcast_ref::<OpsError>() {
        Some(OpsError::Interrupted) => return Exit::Interrupted,
        Some(OpsError::Engine(EngineError::NotExecutable { code, .. })) => Exit::Process(*code),
        Some(OpsError::Step { source, .. }) => match &**source {
            EngineError::NotExecutable { code, .. } => Exit::Process(*code),
            _ => Exit::Failure,
        },
        _ => Exit::Failure,
    };
    if let Some(mistakes) = error.downcast_ref::<Mistakes>()
        && !json
    {
        out::talk(&mistakes.text);
        return exit;
    }
    if json {
        let mut message = serde_json::json!({ "error": true, "message": in_words(&chain(error)) });
        if let Some(mistakes) = error.downcast_ref::<Mistakes>() {
            message["diagnostics"] = mistakes.json.clone();
        }
        out::talk(&format!("{message}\n"));
    } else {
        out::talk(&in_words(&text(error, color)));
    }
    exit
}

/// The text without the numbers that the standard library adds to what the system says.
fn in_words(text: &str) -> String {
    let mut words = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        words.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = rest.strip_prefix(')').unwrap_or(rest);
    }
    words + rest
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// The error and its causes on one line.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        // A cause that its parent already quotes says nothing new.
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    text
}

fn text(error: &anyhow::Error, color: bool) -> String {
    let label = if color { "\x1b[1;31merror\x1b[0m" } else { "error" };
    match error.downcast_ref::<OpsError>() {
        Some(OpsError::Several { errors, .. }) => {
            let mut text = String::new();
            for one in errors {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{label}: {}", ops_chain(one));
                if let OpsError::NotReady(report) = one {
                    text.push_str(&failure(report, jiff::Timestamp::now()));
                }
            }
            text
        }
        Some(OpsError::Build { source, .. }) if matches!(&**source, EngineError::Build(_)) => {
            let EngineError::Build(report) = &**source else { return String::new() };
            format!("{}{label}: {}\n", build_failure(report), chain(error))
        }
        Some(OpsError::NotReady(report)) => {
            format!("{label}: {report}\n{}", failure(report, jiff::Timestamp::now()))
        }
        Some(ops) => {
            let mut text = format!("{label}: {}\n", chain(error));
            if let Some(hint) = hint(ops) {
                let _ = writeln!(text, "  = help: {hint}");
            }
            text
        }
        None => format!("{label}: {}\n", chain(error)),
    }
}

fn ops_chain(error: &OpsError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            let _ = write!(text, ": {part}");
        }
        source = cause.source();
    }
    text
}

/// What to do next, where it is clear.
fn hint(error: &OpsError) -> Option<String> {
    match error {
        OpsError::NoSuchService { service, known } => {
            let near = hoist::diagnostic::suggest::nearest(service, known.iter().map(String::as_str));
            Some(match near {
                Some(name) => format!("did you mean `{name}`?"),
                None if known.is_empty() => "the project has no services".into(),
                None => format!("the services are {}", known.join(", ")),
            })
        }
        OpsError::NotRunning { service, .. } => Some(format!("`hoist up -d {service}` starts it")),
        OpsError::NoContainer { service, .. } => Some(format!("`hoist up -d {service}` makes and starts it")),
        OpsError::ExternalMissing { kind, name } => {
            Some(format!("make it with `hoist {kind} create {name}`, or drop `external: true`"))
        }
        _ => None,
    }
}

/// The step that failed with its last output, and its place in the Dockerfile.
fn build_failure(failure: &BuildFailure) -> String {
    let mut text = String::new();
    if !failure.output.is_empty() {
        let _ = writeln!(text, "------\n > {}:", printable(&failure.step));
        for line in &failure.output {
            let _ = writeln!(text, "{}", printable(line));
        }
        text.push_str("------\n");
    }
    text.push_str(&failure.shown);
    text
}

/// Everything that is known about why a service is not ready.
pub(crate) fn failure(report: &FailureReport, now: jiff::Timestamp) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    field("service", &report.service);
    if let Some(container) = &report.container {
        field("container", container);
    }
    field("awaited", report.condition);
    if let Some(since) = report.since {
        field("started", &format!("{} ago", human_duration(now.duration_since(since))));
    }
    if let Some(waited) = report.waited
        && report.cause != FailureCause::Timeout
    {
        field("waited", &human_duration(waited));
    }
    if !report.blocked.is_empty() {
        field("blocked", &report.blocked.join(", "));
    }
    if !report.probes.is_empty() {
        text.push_str("  last probes:\n");
        for probe in &report.probes {
            let code = if probe.exit_code == -1 {
                "timed out".into()
            } else {
                format!("exit code {}", probe.exit_code)
            };
            let ago = human_duration(now.duration_since(probe.at));
            let _ = writeln!(text, "    {ago} ago, {code}");
            for line in probe.output.lines().take(3) {
                let _ = writeln!(text, "      {}", printable(line));
            }
        }
    }
    if !report.output.is_empty() {
        text.push_str("  last output:\n");
        for line in &report.output {
            let _ = writeln!(text, "    | {}", printable(line));
        }
    }
    if let Some(hint) = &report.hint {
        let _ = writeln!(text, "  = help: {hint}");
    }
    text
}

/// A line of somebody's output without what could move the cursor.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_service_is_explained() {
        let now: jiff::Timestamp = "2026-01-02T00:01:00Z".parse().expect("valid");
        let report = FailureReport {
            service: "db".into(),
            container: Some("p-db-1".into()),
            cause: FailureCause::Exited { code: 1, oom: false },
            condition: "healthy",
            dependency: true,
            since: Some("2026-01-02T00:00:57Z".parse().expect("valid")),
            waited: None,
            probes: vec![],
            output: vec!["cannot open\x1b[2J /data".into()],
            blocked: vec!["web".into()],
            hint: Some("`hoist logs db` shows all of its output".into()),
        };
        insta::assert_snapshot!(failure(&report, now), @r"
          service   db
          container p-db-1
          awaited   healthy
          started   3 seconds ago
          blocked   web
          last output:
            | cannot open�[2J /data
          = help: `hoist logs db` shows all of its output
        ");
    }

    #[test]
    fn error_numbers_are_for_nobody() {
        let text = "cannot open `x`: No such file or directory (os error 2): retry (os error 111)\n";
        assert_eq!(in_words(text), "cannot open `x`: No such file or directory: retry\n");
        assert_eq!(in_words("as it is (os errors)"), "as it is (os errors)");
    }

    #[test]
    fn a_typing_error_gets_a_suggestion() {
        let error = OpsError::NoSuchService { service: "wbe".into(), known: vec!["db".into(), "web".into()] };
        insta::assert_snapshot!(text(&error.into(), false), @r"
        error: no such service: wbe
          = help: did you mean `web`?
        ");
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("disk full").context("cannot write x: disk full").context("cannot save");
        assert_eq!(chain(&error), "cannot save: cannot write x: disk full");
    }
}

//! What is right and hardly meant: warnings that do not stop a load.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, suggest};
use crate::model::{Project, Service};

use super::document::Node;
use super::tree::{locate, section};

/// The restart policies, but for `on-failure` with a number.
const RESTART: &[&str] = &["no", "always", "unless-stopped", "on-failure"];

/// Logs restart policies that no engine knows. Docker Compose accepts them in the file, and `up` fails.
pub(super) fn restart_policies(project: &Project, root: &Node, out: &mut Vec<Diagnostic>) {
    for (name, service) in &project.services {
        let Some(policy) = service.restart.as_deref().filter(|policy| !policy.is_empty()) else { continue };
        let (word, number) = policy.split_once(':').unwrap_or((policy, "1"));
        let limited = word == "on-failure" || !policy.contains(':');
        if RESTART.contains(&word) && limited && number.parse::<u32>().is_ok() {
            continue;
        }
        let at = locate(root, &["services", name, "restart"], false);
        let message = format!("service `{name}` has the restart policy `{policy}`, which does not exist");
        let mut d = Diagnostic::warning("unknown-restart", message)
            .at(at, "expected `no`, `always`, `unless-stopped` or `on-failure[:NUMBER]`");
        if let Some(near) = suggest::nearest(word, RESTART.iter().copied()).filter(|near| *near != word) {
            d = d.help(format!("did you mean `{near}`?"));
        }
        out.push(d);
    }
}

/// Logs container names that no engine takes, which Docker Compose accepts in the file, too.
pub(super) fn container_names(project: &Project, root: &Node, out: &mut Vec<Diagnostic>) {
    for (name, service) in &project.services {
        let Some(given) = &service.container_name else { continue };
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let right = given.len() > 1
            && given.starts_with(|c: char| c.is_ascii_alphanumeric())
            && given.bytes().all(inner);
        if !right {
            let at = locate(root, &["services", name, "container_name"], false);
            out.push(
                Diagnostic::warning("invalid-name", format!("`{given}` cannot be the name of a container"))
                    .at(at, "expected letters, digits, `_`, `.` and `-`, at least two"),
            );
        }
    }
}

/// Logs networks, volumes, secrets and configs that no service uses, enabled or not.
pub(super) fn unused(project: &Project, root: &Node, out: &mut Vec<Diagnostic>) {
    let services = || project.services.values().chain(project.disabled.values());
    let mut look = |code: &'static str, key: &str, word: &str, of: &dyn Fn(&Service) -> Vec<String>| {
        let used: BTreeSet<String> = services().flat_map(of).collect();
        for (name, e) in section(root, key) {
            let implied = name.starts_with("x-") || (key == "networks" && name == "default");
            if !used.contains(name) && !implied {
                let message = format!("{word} `{name}` is declared, and no service uses it");
                out.push(
                    Diagnostic::warning(code, message)
                        .at(e.key, "declared here")
                        .help("it is not made; use it in a service, or remove it"),
                );
            }
        }
    };
    look("unused-network", "networks", "network", &|s| s.networks.keys().cloned().collect());
    look("unused-volume", "volumes", "volume", &|s| {
        s.volumes.iter().filter_map(|v| v.source.clone()).collect()
    });
    look("unused-secret", "secrets", "secret", &|s| {
        let build = s.build.iter().flat_map(|build| &build.secrets);
        let own = s.secrets.iter().filter_map(|file| file.source.clone());
        own.chain(build.filter_map(|secret| secret.source.clone())).collect()
    });
    look("unused-config", "configs", "config", &|s| {
        s.configs.iter().filter_map(|c| c.source.clone()).collect()
    });
}

//! `import`: a file system tarball becomes an image of one layer.

use std::io::Read;

use jiff::Timestamp;

use super::config::{Empty, Healthcheck, History, ImageConfig, RootFs, RunConfig};
use super::ingest::{LayerSource, Progress, Staging};
use super::reference::{Digest, Platform, Reference};
use super::store::Store;
use super::{ImageError, Result};

/// Why a tarball cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A `--change` is not understood.
    #[error("invalid change `{change}`: {reason}")]
    Change {
        /// As given.
        change: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tarball cannot be read.
    #[error("cannot read the tarball")]
    Read(#[source] std::io::Error),
}

/// What an import is to make.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Name of the new image; none leaves it unnamed.
    pub reference: Option<String>,
    /// Dockerfile instructions: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`,
    /// `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`.
    pub changes: Vec<String>,
    /// Remark in the history.
    pub message: String,
    /// What it runs on; none means the host.
    pub platform: Option<String>,
    /// When it says it was made; none means now.
    pub created: Option<Timestamp>,
}

impl Store {
    /// Makes an image from a tarball (plain, gzip or zstd) and gives its id.
    ///
    /// # Errors
    /// [`ImportError`] for changes and reading; [`ImageError::Unpack`] for a bad tarball.
    pub fn import(
        &self,
        tarball: impl Read + Send,
        import: &Import,
        progress: Progress<'_>,
    ) -> Result<Digest> {
        let reference = import.reference.as_deref().map(str::parse::<Reference>).transpose()?;
        let platform = match &import.platform {
            Some(text) => text.parse()?,
            None => Platform::host(),
        };
        let mut config = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            created: Some(import.created.unwrap_or_else(Timestamp::now)),
            comment: import.message.clone(),
            ..ImageConfig::default()
        };
        for change in &import.changes {
            apply_change(&mut config.config, change)?;
        }
        let staging = Staging::new(self)?;
        // The diff ID is known only at the end, so this is a pass of its own before `ingest`.
        let dir = staging.dir.join("import");
        crate::util::fs::create_dir_all(&dir)?;
        let unpacked = super::unpack::unpack(tarball, &dir, self.limits(), &mut |count| {
            progress(super::Event::Layer {
                id: "import".to_owned(),
                text: "Importing",
                current: count,
                total: None,
            });
        })
        .map_err(|source| ImageError::Unpack { layer: Digest::of(b""), source: Box::new(source) })?;
        let diff_id = unpacked.diff_id.clone();
        {
            let _hold = self.hold()?;
            staging.lease(std::slice::from_ref(&diff_id.hex().to_owned()))?;
            if !self.adopt_layer(&dir, &unpacked)? {
                // It is the lowest layer: nothing below can say more about implied directories.
                self.place(&dir, diff_id.hex())?;
            }
        }
        config.rootfs = RootFs { diff_ids: vec![diff_id.clone()], ..RootFs::default() };
        config.history = vec![History {
            created: config.created,
            comment: if import.message.is_empty() {
                "Imported from -".to_owned()
            } else {
                import.message.clone()
            },
            ..History::default()
        }];
        let bytes = serde_json::to_vec(&config).map_err(|source| ImageError::Document {
            what: "config",
            digest: "of the import".to_owned(),
            source,
        })?;
        // Its layer is there already, nobody asks for the bytes.
        let source =
            LayerSource { blob: None, size: None, open: Box::new(|| Ok(Box::new(std::io::empty()))) };
        let id = self.ingest(&staging, &bytes, &[source], &[], progress)?;
        if let Some(reference) = reference {
            let _hold = self.hold()?;
            self.point(&reference, &id)?;
        }
        Ok(id)
    }
}

/// Applies one Dockerfile instruction to a config.
pub(crate) fn apply_change(config: &mut RunConfig, change: &str) -> Result<()> {
    let bad = |reason| ImportError::Change { change: change.to_owned(), reason };
    let (word, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(bad("it needs an argument").into());
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest, &config.shell),
        "ENTRYPOINT" => config.entrypoint = command(rest, &config.shell),
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| bad("expected KEY=VALUE"))? {
                let prefix = format!("{key}=");
                config.env.retain(|old| !old.starts_with(&prefix));
                config.env.push(prefix + &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(|| bad("expected KEY=VALUE"))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                if number.split('-').any(|number| number.parse::<u16>().is_err()) {
                    return Err(bad("expected PORT[/PROTOCOL]").into());
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), Empty {});
            }
        }
        "VOLUME" => {
            let paths: Vec<String> = match serde_json::from_str(rest) {
                Ok(paths) => paths,
                Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
            };
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') {
                rest.to_owned()
            } else {
                format!("{}/{rest}", config.working_dir.trim_end_matches('/'))
            };
        }
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "SHELL" => config.shell = serde_json::from_str(rest).map_err(|_| bad("expected a JSON list"))?,
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "HEALTHCHECK" => {
            config.healthcheck = Some(
                healthcheck(rest, &config.shell).ok_or_else(|| bad("expected [OPTIONS] CMD … or NONE"))?,
            );
        }
        _ => return Err(bad("not an instruction that changes an image's config").into()),
    }
    Ok(())
}

/// JSON form, else shell form.
fn command(text: &str, shell: &[String]) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| {
        let mut words =
            if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.to_vec() };
        words.push(text.to_owned());
        words
    })
}

fn healthcheck(text: &str, shell: &[String]) -> Option<Healthcheck> {
    let mut health = Healthcheck::default();
    let mut rest = text.trim_start();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace)?;
        let (key, value) = option.split_once('=')?;
        let nanos = || {
            let span: jiff::SignedDuration = value.parse().ok()?;
            i64::try_from(span.as_nanos()).ok()
        };
        match key {
            "interval" => health.interval = nanos()?,
            "timeout" => health.timeout = nanos()?,
            "start-period" => health.start_period = nanos()?,
            "start-interval" => health.start_interval = nanos()?,
            "retries" => health.retries = value.parse().ok()?,
            _ => return None,
        }
        rest = after.trim_start();
    }
    if rest.eq_ignore_ascii_case("none") {
        health.test = vec!["NONE".to_owned()];
        return Some(health);
    }
    let (word, command) = rest.split_once(char::is_whitespace)?;
    if !word.eq_ignore_ascii_case("cmd") {
        return None;
    }
    health.test = match serde_json::from_str::<Vec<String>>(command.trim()) {
        Ok(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
        Err(_) if shell.is_empty() => vec!["CMD-SHELL".to_owned(), command.trim().to_owned()],
        Err(_) => std::iter::once("CMD".to_owned())
            .chain(shell.iter().cloned())
            .chain([command.trim().to_owned()])
            .collect(),
    };
    Some(health)
}

/// `K=V K="v w"`, or the old form `K v w`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if !text.split_whitespace().next()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let mut words = Vec::new();
    let (mut word, mut quote, mut any) = (String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                any = true;
            }
            (Some('"') | None, '\\') => word.push(chars.next()?),
            (None, c) if c.is_whitespace() => {
                if any {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            (_, c) => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    if quote.is_some() {
        return None;
    }
    words
        .into_iter()
        .map(|word| {
            let (key, value) = word.split_once('=')?;
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_do_what_the_instructions_do() {
        let mut config = RunConfig::default();
        for change in [
            "CMD [\"a\",\"b\"]",
            "ENTRYPOINT run it",
            "ENV A=1 B=\"two words\"",
            "ENV C three words",
            "ENV A=2",
            "EXPOSE 80 53/udp",
            "VOLUME /data",
            "WORKDIR /srv",
            "WORKDIR app",
            "LABEL x=y",
            "HEALTHCHECK --interval=5s --retries=2 CMD curl x",
            "STOPSIGNAL SIGINT",
        ] {
            apply_change(&mut config, change).expect(change);
        }
        assert_eq!(config.cmd, ["a", "b"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["B=two words", "C=three words", "A=2"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.working_dir, "/srv/app");
        let health = config.healthcheck.expect("set");
        assert_eq!((health.interval, health.retries), (5_000_000_000, 2));
        assert_eq!(health.test, ["CMD-SHELL", "curl x"]);
        for change in ["RUN x", "CMD", "EXPOSE x", "ENV =", "HEALTHCHECK x"] {
            assert!(apply_change(&mut RunConfig::default(), change).is_err(), "{change}");
        }
    }
}

//! `build`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use hoist::model::Bytes;
use hoist::ops::{self, BuildOptions, PushOptions};

use super::super::session::{self, NO_LOGS, Need};
use super::{Exit, Settings, Verb};

/// Build the images of services
///
/// Services that take files from the image of another one are built after it,
/// the others beside each other. Steps that were done before, in any project,
/// are not done again unless something they depend on has changed.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Value of a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    build_arg: Vec<String>,
    /// Not available: hoist has one builder
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// Only look for mistakes in the Dockerfiles
    #[arg(long)]
    check: bool,
    /// Deprecated: intermediate containers never stay
    #[arg(long, hide = true)]
    compress: bool,
    /// Deprecated: intermediate containers never stay
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Most memory that a command may use, such as 512m
    #[arg(long, short, value_name = "BYTES")]
    memory: Option<String>,
    /// Do every step anew
    #[arg(long)]
    no_cache: bool,
    /// Deprecated: intermediate containers never stay
    #[arg(long, hide = true)]
    no_rm: bool,
    /// Deprecated: builds are parallel anyway
    #[arg(long, hide = true)]
    parallel: bool,
    /// Not available: hoist does not use bake
    #[arg(long)]
    print: bool,
    /// Provenance attestation: only false is possible
    #[arg(long, value_name = "VALUE", num_args = 0..=1, default_missing_value = "true")]
    provenance: Option<String>,
    /// Ask registries for newer base images
    #[arg(long)]
    pull: bool,
    /// Push what was built; services without `image` are left out
    #[arg(long)]
    push: bool,
    /// No output of builds that succeed
    #[arg(long, short)]
    quiet: bool,
    /// Deprecated: intermediate containers never stay
    #[arg(long, hide = true)]
    rm: bool,
    /// SBOM attestation: only false is possible
    #[arg(long, value_name = "VALUE", num_args = 0..=1, default_missing_value = "true")]
    sbom: Option<String>,
    /// SSH agent for the build: default, or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]", num_args = 0..=1, default_missing_value = "default")]
    ssh: Vec<String>,
    /// Also what they depend on
    #[arg(long)]
    with_dependencies: bool,
}

impl Args {
    fn options(&self, environment: &BTreeMap<String, String>) -> anyhow::Result<BuildOptions> {
        if let Some(builder) = self.builder.as_deref().filter(|name| !matches!(*name, "" | "default")) {
            bail!("`--builder {builder}` is not available: hoist has one builder, its own");
        }
        if self.print {
            bail!("`--print` is not available: hoist does not use bake; `hoist config` shows what is built");
        }
        let mut args = BTreeMap::new();
        for word in &self.build_arg {
            match word.split_once('=') {
                Some((key, value)) => drop(args.insert(key.to_owned(), value.to_owned())),
                // As on Docker, one that is not set outside is not given.
                None => args.extend(environment.get(word).map(|value| (word.clone(), value.clone()))),
            }
        }
        let memory = self.memory.as_deref().map(|text| {
            Bytes::parse(text)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("invalid --memory option `{text}`"))
        });
        let ssh = self.ssh.iter().map(|word| match word.split_once('=') {
            Some((id, path)) => Ok((id.to_owned(), Some(path.to_owned()))),
            None if word == "default" || word.is_empty() => Ok(("default".to_owned(), None)),
            None => bail!("invalid --ssh option `{word}`: it should be default, or ID=SOCKET"),
        });
        Ok(BuildOptions {
            services: self.services.clone(),
            with_dependencies: self.with_dependencies,
            args,
            no_cache: self.no_cache,
            pull: self.pull,
            quiet: self.quiet,
            ssh: ssh.collect::<anyhow::Result<_>>()?,
            memory: memory.transpose()?.map(|bytes| bytes.0).filter(|bytes| *bytes > 0),
            provenance: self.provenance.clone(),
            sbom: self.sbom.clone(),
            check: self.check,
        })
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        session::run(&settings, Need::Model(&self.services), NO_LOGS, async |session| {
            let options = self.options(&session.context.project.environment)?;
            ops::build(&session.context, &options, &session.events).await?;
            // A check builds nothing that could be pushed.
            if self.push && !self.check {
                let push = PushOptions {
                    services: self.services.clone(),
                    include_deps: self.with_dependencies,
                    ignore_failures: false,
                    quiet: self.quiet,
                };
                ops::push(&session.context, &push, &session.events).await?;
            }
            Ok(Exit::Success)
        })
    }
}

//! `up`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use hoist::ops::{
    self, Abort, Always, AttachOptions, BuildPolicy, ConvergeOptions, Follow, OpsError, Recreate, UpMode,
    UpOptions, UpOutcome, WaitLimit, WatchOptions,
};

use super::super::render::logs::Style;
use super::super::session::{self, Need, Session};
use super::translate;
use super::{Exit, Settings, Verb, plan};

/// Create and start containers, and follow their output
///
/// Services start in the order of their `depends_on`. Containers that already
/// are as the files ask for are left alone; the others are made anew.
///
/// Without -d the output of all services is shown until they end or Ctrl-C is
/// pressed: the first one stops them in order, a second one kills them. With
/// -d the command returns as soon as everything is started, with --wait when
/// everything is healthy too.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Only these services and what they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Stop everything when any container ends
    #[arg(long, conflicts_with = "abort_on_container_failure")]
    abort_on_container_exit: bool,
    /// Stop everything when any container ends with an error
    #[arg(long)]
    abort_on_container_failure: bool,
    /// Make containers of dependencies anew, too
    #[arg(long)]
    always_recreate_deps: bool,
    /// Show the output of these services only
    #[arg(long, value_name = "SERVICE", conflicts_with = "attach_dependencies")]
    attach: Vec<String>,
    /// Show the output of dependencies, too
    #[arg(long)]
    attach_dependencies: bool,
    /// Build images first
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Return when the containers are started
    #[arg(long, short, conflicts_with_all = ["abort_on_container_exit", "abort_on_container_failure", "attach", "attach_dependencies", "watch"])]
    detach: bool,
    /// End with the exit code of this service; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Make containers anew even if nothing has changed
    #[arg(long)]
    force_recreate: bool,
    /// Show the keys that can be pressed while attached
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::super::args::go_bool, value_name = "BOOL")]
    menu: Option<bool>,
    /// Do not show the output of these services
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Never build an image
    #[arg(long, conflicts_with = "watch")]
    no_build: bool,
    /// Do not colour the output
    #[arg(long)]
    no_color: bool,
    /// Leave dependencies alone
    #[arg(long)]
    no_deps: bool,
    /// Do not put the container's name before each line
    #[arg(long)]
    no_log_prefix: bool,
    /// Keep existing containers even if the files have changed
    #[arg(long, conflicts_with_all = ["force_recreate", "renew_anon_volumes", "always_recreate_deps"])]
    no_recreate: bool,
    /// Create containers but do not start them
    #[arg(long)]
    no_start: bool,
    /// When to pull images: always, missing, never or build
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// No output of builds
    #[arg(long)]
    quiet_build: bool,
    /// No progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Give containers fresh anonymous volumes
    #[arg(long, short = 'V')]
    renew_anon_volumes: bool,
    /// Run this many containers of a service, as SERVICE=NUM
    #[arg(long, value_name = "SERVICE=NUM")]
    scale: Vec<String>,
    /// Seconds before a container that should stop is killed
    #[arg(long, short, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Return when everything is running and healthy; implies -d
    #[arg(long, conflicts_with_all = ["abort_on_container_exit", "abort_on_container_failure", "attach", "attach_dependencies", "watch"])]
    wait: bool,
    /// Seconds to wait at most with --wait
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    wait_timeout: i64,
    /// Follow changes of source files
    #[arg(long, short)]
    watch: bool,
    /// Answer every question with yes
    #[arg(long, short, alias = "y")]
    yes: bool,
}

impl Args {
    pub(super) fn options(&self, settings: &Settings) -> anyhow::Result<UpOptions> {
        if self.menu == Some(true) {
            bail!("`--menu` is not available: hoist has no keyboard menu yet");
        }
        if self.wait_timeout < 0 {
            bail!("--wait-timeout must be 0 or more");
        }
        let remove_orphans = settings.remove_orphans(self.remove_orphans);
        let ignore_orphans = settings.ignore_orphans();
        if remove_orphans && ignore_orphans {
            bail!("COMPOSE_IGNORE_ORPHANS and --remove-orphans cannot be combined");
        }
        let recreate = if self.no_recreate {
            Recreate::Never
        } else if self.force_recreate || self.renew_anon_volumes {
            Recreate::Force
        } else {
            Recreate::Diverged
        };
        let mode = if self.no_start {
            UpMode::Create
        } else if self.wait {
            let seconds = u64::try_from(self.wait_timeout)?;
            UpMode::Wait(WaitLimit { timeout: (seconds > 0).then(|| Duration::from_secs(seconds)) })
        } else if self.detach {
            UpMode::Detached
        } else {
            UpMode::Attached(self.attach_options())
        };
        Ok(UpOptions {
            services: self.services.clone(),
            converge: ConvergeOptions {
                recreate,
                recreate_dependencies: if self.no_recreate {
                    Recreate::Never
                } else if self.always_recreate_deps {
                    Recreate::Force
                } else {
                    Recreate::Diverged
                },
                renew_anonymous_volumes: self.renew_anon_volumes,
                no_deps: self.no_deps,
                remove_orphans,
                ignore_orphans,
                scale: translate::scale(&self.scale)?,
                pull: translate::pull_policy(self.pull.as_deref())?,
                quiet_pull: self.quiet_pull,
                build: if self.build {
                    BuildPolicy::Always
                } else if self.no_build {
                    BuildPolicy::Never
                } else {
                    BuildPolicy::Missing
                },
                quiet_build: self.quiet_build,
                timeout: translate::timeout(self.timeout),
            },
            mode,
        })
    }

    fn attach_options(&self) -> AttachOptions {
        let follow = if !self.attach.is_empty() {
            Follow::Only(self.attach.clone())
        } else if self.attach_dependencies {
            Follow::WithDependencies
        } else {
            Follow::Named
        };
        let abort = if self.abort_on_container_failure {
            Abort::OnFailure
        } else if self.abort_on_container_exit || self.exit_code_from.is_some() {
            Abort::OnExit
        } else {
            Abort::Never
        };
        AttachOptions {
            follow,
            except: self.no_attach.clone(),
            abort,
            exit_code_from: self.exit_code_from.clone(),
        }
    }
}

impl Verb for Args {
    fn run(self, settings: Settings) -> anyhow::Result<Exit> {
        let options = self.options(&settings)?;
        if settings.dry_run {
            return plan::show(&options, &settings).map(|_| Exit::Success);
        }
        let logs = Style {
            color: settings.color_stdout && !self.no_color,
            prefix: !self.no_log_prefix,
            timestamps: self.timestamps,
            one_stream: false,
            json: false,
        };
        session::run(&settings, Need::Model(&options.services), logs, async |mut session| {
            if self.yes {
                session.context.prompt = Arc::new(Always(true));
            }
            let outcome = if self.watch {
                watched(&session, &options).await?
            } else {
                ops::up(&session.context, &options, &session.events).await?
            };
            Ok(match outcome {
                UpOutcome { exit_code, .. } if exit_code != 0 => Exit::Process(exit_code),
                UpOutcome { interrupted: true, .. } => Exit::Interrupted,
                UpOutcome { .. } => Exit::Success,
            })
        })
    }
}

/// Follows the working tree while an attached `up` runs, and ends with it.
async fn watched(session: &Session<'_>, options: &UpOptions) -> anyhow::Result<UpOutcome> {
    let watch = WatchOptions {
        services: options.services.clone(),
        up: false,
        prune: false,
        quiet_build: options.converge.quiet_build,
    };
    let mut watching = std::pin::pin!(ops::watch(&session.context, &watch, &session.events));
    let mut running = std::pin::pin!(ops::up(&session.context, options, &session.events));
    let mut watches = true;
    loop {
        tokio::select! {
            // Rules that make no sense are refused before anything is made.
            biased;
            ended = &mut watching, if watches => match ended {
                // The interrupt is for `up` to carry out.
                Ok(()) | Err(OpsError::Interrupted) => watches = false,
                Err(error) => return Err(error.into()),
            },
            outcome = &mut running => return Ok(outcome?),
        }
    }
}

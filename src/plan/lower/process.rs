//! What runs, and what happens around it: process, restarts, health, log.

use crate::model::{Duration, Service};
use crate::spec::{HealthSpec, HealthTest, LogSpec, ProcessSpec, RestartPolicy};

pub(super) fn process(service: &Service) -> ProcessSpec {
    ProcessSpec {
        entrypoint: service.entrypoint.0.clone(),
        command: service.command.0.clone(),
        env: service.environment.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        working_dir: service.working_dir.clone(),
        user: service.user.clone(),
        group_add: service.group_add.clone(),
        tty: service.tty,
        stdin_open: service.stdin_open,
        stdin_once: false,
        init: service.init.unwrap_or(false),
    }
}

/// `deploy.restart_policy` wins over `restart`.
pub(super) fn restart_policy(service: &Service) -> Result<RestartPolicy, String> {
    let deployed = service.deploy.as_ref().and_then(|d| d.restart_policy.as_ref());
    let text = match deployed {
        Some(policy) => match policy.condition.as_deref() {
            None | Some("any") => "always".to_owned(),
            Some("none") => "no".to_owned(),
            Some("on-failure") => match policy.max_attempts {
                Some(max) => format!("on-failure:{max}"),
                None => "on-failure".to_owned(),
            },
            Some(other) => other.to_owned(),
        },
        None => service.restart.clone().unwrap_or_default(),
    };
    let (name, max) = match text.split_once(':') {
        Some((name, max)) => (name, Some(max)),
        None => (text.as_str(), None),
    };
    match (name, max) {
        ("" | "no", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", None) => Ok(RestartPolicy::OnFailure { max: None }),
        ("on-failure", Some(max)) => match max.parse() {
            // Docker reads 0 as “no limit”.
            Ok(0) => Ok(RestartPolicy::OnFailure { max: None }),
            Ok(max) => Ok(RestartPolicy::OnFailure { max: Some(max) }),
            Err(_) => Err(format!("invalid number of restarts in restart policy `{text}`")),
        },
        _ => Err(format!(
            "unknown restart policy `{text}`: use `no`, `always`, `unless-stopped` or `on-failure[:n]`"
        )),
    }
}

pub(super) fn health(service: &Service) -> Result<Option<HealthSpec>, String> {
    let Some(check) = &service.healthcheck else { return Ok(None) };
    if check.disable {
        return Ok(Some(HealthSpec { test: Some(HealthTest::None), ..HealthSpec::default() }));
    }
    let words = |from: &[String]| from.to_vec();
    let test = match check.test.split_first().map(|(kind, rest)| (kind.as_str(), rest)) {
        None => None,
        Some(("NONE", _)) => Some(HealthTest::None),
        Some(("CMD", rest)) => Some(HealthTest::Cmd(words(rest))),
        Some(("CMD-SHELL", rest)) => Some(HealthTest::Shell(rest.join(" "))),
        Some((other, _)) => {
            return Err(format!("healthcheck test must begin with CMD, CMD-SHELL or NONE, not `{other}`"));
        }
    };
    let retries = check.retries.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok(Some(HealthSpec {
        test,
        interval: check.interval.map(Duration::to_std),
        timeout: check.timeout.map(Duration::to_std),
        start_period: check.start_period.map(Duration::to_std),
        start_interval: check.start_interval.map(Duration::to_std),
        retries,
    }))
}

pub(super) fn log(service: &Service) -> LogSpec {
    match &service.logging {
        None => LogSpec::default(),
        Some(logging) => LogSpec { driver: logging.driver.clone(), options: logging.options.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Deploy, RestartPolicy as DeployedPolicy};

    #[test]
    fn restart_policies_are_read_as_docker_reads_them() {
        let of = |text: &str| restart_policy(&Service { restart: Some(text.into()), ..Service::default() });
        assert_eq!(of("no"), Ok(RestartPolicy::No));
        assert_eq!(of("on-failure:3"), Ok(RestartPolicy::OnFailure { max: Some(3) }));
        assert_eq!(of("on-failure:0"), Ok(RestartPolicy::OnFailure { max: None }));
        assert!(of("sometimes").expect_err("unknown").contains("sometimes"));
        assert!(of("always:3").is_err());
    }

    #[test]
    fn the_deployed_policy_wins() {
        let policy = DeployedPolicy {
            condition: Some("on-failure".into()),
            max_attempts: Some(2),
            ..DeployedPolicy::default()
        };
        let service = Service {
            restart: Some("always".into()),
            deploy: Some(Deploy { restart_policy: Some(policy), ..Deploy::default() }),
            ..Service::default()
        };
        assert_eq!(restart_policy(&service), Ok(RestartPolicy::OnFailure { max: Some(2) }));
    }
}

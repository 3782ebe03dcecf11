//! `login` and `logout`: the logins of registries, kept where Docker keeps them.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use hoist::runtime::image::{Credential, Credentials, DOCKER_HUB, Registries, check_login};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{Exit, Settings, Verb};
use crate::cli::render::out;

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// Registry host, with its port if it has one [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// User name
    #[arg(long, short)]
    username: Option<String>,
    /// Password or access token; others can see it, so prefer --password-stdin
    #[arg(long, short)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
}

/// Forget the login of a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    /// Registry host, with its port if it has one [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for Login {
    fn run(self, _: Settings) -> anyhow::Result<Exit> {
        let registry = host(self.server.as_deref())?;
        let mut registries = Registries::from_environment()?;
        let known = registries.credentials.get(&registry)?;
        let credential = match (self.username, self.password, self.password_stdin) {
            (None, _, true) => bail!("--password-stdin needs --username"),
            (None, Some(_), false) => bail!("--password needs --username"),
            (Some(user), _, true) => {
                let mut secret = String::new();
                std::io::stdin().lock().read_to_string(&mut secret).context("cannot read the password")?;
                Credential { user, secret: secret.trim_end_matches(['\r', '\n']).to_owned(), is_token: false }
            }
            (Some(user), Some(secret), false) => {
                out::talk(
                    "WARNING! A password on the command line can be seen by others; use --password-stdin.\n",
                );
                Credential { user, secret, is_token: false }
            }
            // As Docker does: what is known already is tried again before anybody is asked.
            (None, None, false) if known.is_some() => {
                out::talk("Authenticating with existing credentials...\n");
                known.context("a login")?
            }
            (user, None, false) => ask(&registry, user)?,
        };
        if credential.secret.is_empty() {
            bail!("the password is empty");
        }
        let kept = check_login(&registry, &credential, &registries)?;
        registries.credentials.store(&registry, &kept)?;
        if let Some(file) = registries.credentials.plain_file(&registry) {
            out::talk(&format!(
                "WARNING! The login is stored unencrypted in `{}` (only you can read it).\n\
                 A credential helper (`credsStore` in that file) keeps it better.\n",
                file.display()
            ));
        }
        out::print("Login Succeeded\n")?;
        Ok(Exit::Success)
    }
}

impl Verb for Logout {
    fn run(self, _: Settings) -> anyhow::Result<Exit> {
        let registry = host(self.server.as_deref())?;
        let mut credentials = Credentials::from_environment()?;
        if credentials.erase(&registry)? {
            out::print(&format!("Removing login credentials for {registry}\n"))?;
        } else {
            out::print(&format!("Not logged in to {registry}\n"))?;
        }
        Ok(Exit::Success)
    }
}

/// The registry that an argument names: a host, or a URL as old instructions have it.
fn host(server: Option<&str>) -> anyhow::Result<String> {
    let Some(server) = server else { return Ok(DOCKER_HUB.to_owned()) };
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or(bare);
    if matches!(host, "index.docker.io" | "registry-1.docker.io") {
        return Ok(DOCKER_HUB.to_owned());
    }
    if host.is_empty() || host.contains(char::is_whitespace) {
        bail!("`{server}` is not a registry; expected HOST[:PORT]");
    }
    Ok(host.to_owned())
}

/// Asks on the terminal.
fn ask(registry: &str, user: Option<String>) -> anyhow::Result<Credential> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked for user name and password here; give --username and --password-stdin");
    }
    out::talk(&format!("Login to {registry}. Many registries want an access token for a password.\n"));
    let user = match user {
        Some(user) => user,
        None => {
            out::talk("Username: ");
            line()?
        }
    };
    if user.is_empty() {
        bail!("a user name is needed");
    }
    out::talk("Password: ");
    let secret = {
        let _quiet = Unseen::new()?;
        line()
    };
    out::talk("\n");
    Ok(Credential { user, secret: secret?, is_token: false })
}

fn line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the terminal")?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// While it lives, the terminal does not show what is typed.
struct Unseen(Termios);

impl Unseen {
    fn new() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).context("cannot ask the terminal for its settings")?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &hidden).context("cannot hide what is typed")?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        let _as_good_as_it_gets = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_or_a_url() {
        let host = |server| host(Some(server)).ok();
        assert_eq!(host("localhost:5000").as_deref(), Some("localhost:5000"));
        assert_eq!(host("https://r.example/v2/").as_deref(), Some("r.example"));
        assert_eq!(host("https://index.docker.io/v1/").as_deref(), Some("docker.io"));
        assert_eq!(host(""), None);
        assert_eq!(host("a b"), None);
    }
}

//! Credentials: Docker's `config.json` and its helper programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::RegistryError;
use crate::runtime::image::reference::DOCKER_HUB;
use crate::util::fs::{self, PathError};

/// Key of Docker Hub in `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A user name and a password, or a token that buys tokens. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// User name; `<token>` in helpers' answers means an identity token.
    pub user: String,
    /// Password or identity token.
    pub secret: String,
    /// `secret` is an OAuth refresh token.
    pub is_token: bool,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).field("secret", &"…").finish_non_exhaustive()
    }
}

/// Where credentials are looked up.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    file: Option<PathBuf>,
    config: ConfigFile,
    /// Credentials given by the caller win.
    given: BTreeMap<String, Credential>,
}

/// `config.json`; what we do not know is kept when it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConfigFile {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(skip_serializing_if = "String::is_empty")]
    creds_store: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct AuthEntry {
    #[serde(skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
}

impl std::fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthEntry(…)")
    }
}

impl Credentials {
    /// Of `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; none if there is no such file.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] if it is there and cannot be understood.
    pub fn from_environment() -> Result<Self, RegistryError> {
        let dir = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(
            || Some(PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".docker")),
        );
        match dir {
            Some(dir) => Self::from_file(&dir.join("config.json")),
            None => Ok(Self::default()),
        }
    }

    /// Of this file; none if it does not exist.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] if it is there and cannot be understood.
    pub fn from_file(path: &Path) -> Result<Self, RegistryError> {
        let config = fs::read_json(path).map_err(RegistryError::Settings)?.unwrap_or_default();
        Ok(Self { file: Some(path.to_owned()), config, given: BTreeMap::new() })
    }

    /// The same with a credential for one registry that wins over the file.
    #[must_use]
    pub fn with(mut self, registry: &str, credential: Credential) -> Self {
        self.given.insert(registry.to_owned(), credential);
        self
    }

    /// What is known for a registry host.
    ///
    /// Helpers come first, the one for this registry before the general one; then the file.
    ///
    /// # Errors
    /// [`RegistryError::Helper`] if a helper fails in another way than knowing nothing.
    pub fn get(&self, registry: &str) -> Result<Option<Credential>, RegistryError> {
        if let Some(given) = self.given.get(registry) {
            return Ok(Some(given.clone()));
        }
        let key = key_of(registry);
        if let Some(helper) = self.helper_of(registry)
            && let Some(found) = ask_helper(helper, key)?
        {
            return Ok(Some(found));
        }
        // People and programs have written keys in several forms.
        let entry = self.config.auths.iter().find(|(name, _)| {
            let bare = name.trim_start_matches("https://").trim_start_matches("http://");
            let host = bare.split('/').next().unwrap_or(bare);
            name.as_str() == key || host == registry || (registry == DOCKER_HUB && host == "index.docker.io")
        });
        Ok(entry.and_then(|(_, entry)| entry.credential()))
    }

    /// Remembers a credential where Docker would: in the helper, else in the file (mode 0600).
    ///
    /// # Errors
    /// [`RegistryError::Helper`], [`RegistryError::Settings`].
    pub fn store(&mut self, registry: &str, credential: &Credential) -> Result<(), RegistryError> {
        let key = key_of(registry);
        if let Some(helper) = self.helper_of(registry).map(str::to_owned) {
            let user = if credential.is_token { "<token>" } else { &credential.user };
            let input = serde_json::json!({"ServerURL": key, "Username": user, "Secret": credential.secret})
                .to_string();
            run_helper(&helper, "store", &input)
                .map_err(|reason| RegistryError::Helper { helper, reason })?;
            self.config.auths.insert(key.to_owned(), AuthEntry::default());
        } else {
            let plain = format!("{}:{}", credential.user, credential.secret);
            let entry = if credential.is_token {
                AuthEntry { identitytoken: credential.secret.clone(), ..AuthEntry::default() }
            } else {
                let auth = base64::engine::general_purpose::STANDARD.encode(plain);
                AuthEntry { auth, ..AuthEntry::default() }
            };
            self.config.auths.insert(key.to_owned(), entry);
        }
        self.write()
    }

    /// Forgets what is known for a registry; `false` if nothing was.
    ///
    /// # Errors
    /// [`RegistryError::Helper`], [`RegistryError::Settings`].
    pub fn erase(&mut self, registry: &str) -> Result<bool, RegistryError> {
        let key = key_of(registry);
        let mut known = false;
        if let Some(helper) = self.helper_of(registry).map(str::to_owned) {
            known = run_helper(&helper, "erase", key).is_ok();
        }
        let same =
            |name: &str| name == key || name == registry || name.trim_start_matches("https://") == registry;
        let before = self.config.auths.len();
        self.config.auths.retain(|name, _| !same(name));
        known |= self.config.auths.len() < before;
        if known {
            self.write()?;
        }
        Ok(known)
    }

    /// The file that [`Credentials::store`] writes the secret of a registry to; `None` when a helper takes it.
    pub fn plain_file(&self, registry: &str) -> Option<&Path> {
        self.file.as_deref().filter(|_| self.helper_of(registry).is_none())
    }

    fn helper_of(&self, registry: &str) -> Option<&str> {
        let helpers = &self.config.cred_helpers;
        let helper = helpers.get(registry).or_else(|| helpers.get(key_of(registry)));
        helper.or(Some(&self.config.creds_store)).map(String::as_str).filter(|name| !name.is_empty())
    }

    fn write(&self) -> Result<(), RegistryError> {
        let Some(path) = &self.file else { return Ok(()) };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(RegistryError::Settings)?;
        }
        let text = serde_json::to_string_pretty(&self.config)
            .map_err(|error| RegistryError::Settings(PathError::at("encode", path)(error)))?;
        // Made with its mode before anything secret is in it, then renamed over the old one.
        let fresh = path.with_extension(format!("json.{}", crate::util::ids::random_hex(4)));
        let write = || {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)
        };
        write().map_err(|error| RegistryError::Settings(PathError::at("write", path)(error)))
    }
}

impl AuthEntry {
    fn credential(&self) -> Option<Credential> {
        let token = !self.identitytoken.is_empty();
        let (user, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let bytes = base64::engine::general_purpose::STANDARD.decode(self.auth.trim()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        if token {
            return Some(Credential { user, secret: self.identitytoken.clone(), is_token: true });
        }
        (!user.is_empty()).then_some(Credential { user, secret: password, is_token: false })
    }
}

fn key_of(registry: &str) -> &str {
    if registry == DOCKER_HUB { HUB_KEY } else { registry }
}

/// `docker-credential-NAME get`; `None` if it knows nothing.
fn ask_helper(helper: &str, key: &str) -> Result<Option<Credential>, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let failed = |reason| RegistryError::Helper { helper: helper.to_owned(), reason };
    match run_helper(helper, "get", key) {
        Ok(output) => {
            let answer: Answer =
                serde_json::from_str(&output).map_err(|_| failed("its answer is not JSON".to_owned()))?;
            let is_token = answer.username == "<token>";
            Ok((!answer.secret.is_empty()).then_some(Credential {
                user: answer.username,
                secret: answer.secret,
                is_token,
            }))
        }
        Err(reason) if reason.contains("credentials not found") => Ok(None),
        Err(reason) => Err(failed(reason)),
    }
}

fn run_helper(helper: &str, verb: &str, input: &str) -> Result<String, String> {
    if helper.contains('/') {
        return Err("its name has a slash".to_owned());
    }
    let run = || {
        let mut child = Command::new(format!("docker-credential-{helper}"))
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if text.is_empty() { said } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_written_as_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"},"r.example:5000":{"username":"a","password":"b"},
            "https://t.example":{"identitytoken":"tok"}},"HttpHeaders":{"X":"y"}}"#;
        std::fs::write(&path, text).unwrap();
        let mut credentials = Credentials::from_file(&path).unwrap();
        let got = |c: &Credentials, r| c.get(r).unwrap().map(|c| (c.user, c.secret, c.is_token));
        assert_eq!(got(&credentials, "docker.io"), Some(("user".into(), "pass".into(), false)));
        assert_eq!(got(&credentials, "r.example:5000"), Some(("a".into(), "b".into(), false)));
        assert_eq!(got(&credentials, "t.example"), Some((String::new(), "tok".into(), true)));
        assert_eq!(got(&credentials, "other.example"), None);
        let new = Credential { user: "me".into(), secret: "s:e".into(), is_token: false };
        credentials.store("new.example", &new).unwrap();
        let again = Credentials::from_file(&path).unwrap();
        assert_eq!(again.get("new.example").unwrap(), Some(new));
        assert!(std::fs::read_to_string(&path).unwrap().contains("HttpHeaders"));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        assert!(credentials.erase("new.example").unwrap());
        assert!(!credentials.erase("new.example").unwrap());
        assert!(!format!("{:?}", Credentials::from_file(&path).unwrap()).contains("dXNlcjpwYXNz"));
    }

    #[test]
    fn a_missing_helper_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"credHelpers":{"h.example":"hoist-test-none"}}"#).unwrap();
        let error = Credentials::from_file(&path).unwrap().get("h.example").unwrap_err();
        assert!(error.to_string().contains("docker-credential-hoist-test-none"), "{error}");
    }
}

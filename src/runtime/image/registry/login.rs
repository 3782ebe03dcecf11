//! Trying a credential out.

use super::auth::Challenge;
use super::client::{Ask, Endpoint, Result};
use super::{Credential, Registries, RegistryError};

/// Asks a registry whether it knows us. Gives the credential to keep: the token that it hands out
/// instead of the password, if it does so.
///
/// # Errors
/// [`RegistryError::Login`] when it does not; others when it cannot be asked.
///
/// # Source
/// distribution-spec, "Determining Support" (`GET /v2/`); token specification, `offline_token`.
pub fn check_login(registry: &str, credential: &Credential, registries: &Registries) -> Result<Credential> {
    let registries = Registries {
        credentials: registries.credentials.clone().with(registry, credential.clone()),
        ..registries.clone()
    };
    let endpoint = Endpoint::new(registry, registry.to_owned(), Vec::new(), false, &registries)?;
    let refused = |reason: &str| RegistryError::Login {
        registry: registry.to_owned(),
        reason: if reason.is_empty() { "wrong user name or password".to_owned() } else { reason.to_owned() },
    };
    match endpoint.try_credential() {
        Ok(Some(token)) => Ok(Credential { secret: token, is_token: true, ..credential.clone() }),
        Ok(None) => Ok(credential.clone()),
        Err(RegistryError::Denied { reason, .. }) => Err(refused(&reason)),
        Err(error) => Err(error),
    }
}

impl Endpoint {
    /// An identity token, if the registry's token server gives one for the credential.
    fn try_credential(&self) -> Result<Option<String>> {
        let ask = Ask::new("GET", "/v2/");
        let answer = match self.unauthenticated(&ask)? {
            (answer, _) if answer.status().is_success() => return Ok(None),
            (answer, base) if answer.status() == 401 => match Challenge::of(&answer) {
                Some(challenge) => (challenge, base),
                None => return Err(self.status_error(&ask, answer)),
            },
            (answer, _) => return Err(self.status_error(&ask, answer)),
        };
        let (challenge, base) = answer;
        let Some(found) = self.authorize(&challenge, &base, &[], true)? else {
            return Err(self.denied(if base.starts_with("http://") {
                "it does not encrypt, so the password was not sent"
            } else {
                "it asks for another way of authentication"
            }));
        };
        let answer = self.with_authorization(&ask, &base, &found.value)?;
        if answer.status().is_success() { Ok(found.identity) } else { Err(self.status_error(&ask, answer)) }
    }
}

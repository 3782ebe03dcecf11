//! Whom to trust: system roots, and Docker's per-registry directories `certs.d/<host>`.

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::RegistryError;

/// Where distributions keep the bundle of trusted roots.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Directories with a registry's own certificates, if it has any.
pub(super) fn directory(host: &str) -> Option<PathBuf> {
    ["/etc/hoist/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"]
        .iter()
        .map(|base| Path::new(base).join(host))
        .find(|dir| dir.is_dir())
}

/// TLS settings for a registry host.
pub(super) fn tls(host: &str, verify: bool) -> Result<TlsConfig, RegistryError> {
    let mut own = Vec::new();
    let mut client = None;
    if let Some(dir) = directory(host) {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => own.extend(certificates(&path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    let pem = std::fs::read(&key).unwrap_or_default();
                    let key = PrivateKey::from_pem(&pem).map_err(|source| RegistryError::Certificate {
                        path: key.display().to_string(),
                        source: Box::new(source),
                    })?;
                    client = Some(ClientCert::new_with_certs(&certificates(&path)?, key));
                }
                _ => {}
            }
        }
    }
    let bundle = std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(BUNDLES.iter().map(PathBuf::from))
        .find(|path| path.is_file());
    let roots = match (&bundle, own.is_empty()) {
        (Some(bundle), _) => {
            own.extend(certificates(bundle)?);
            RootCerts::from(own.into_iter())
        }
        (None, false) => RootCerts::from(own.into_iter()),
        // A bare system: the roots that are built in.
        (None, true) => RootCerts::WebPki,
    };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).disable_verification(!verify).build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let failed =
        |source| RegistryError::Certificate { path: path.display().to_string(), source: Box::new(source) };
    let pem = std::fs::read(path).map_err(|error| failed(ureq::Error::Io(error)))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(failed)? {
            found.push(certificate);
        }
    }
    Ok(found)
}

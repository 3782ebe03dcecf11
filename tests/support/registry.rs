//! A real registry on a test's machine: Debian's `docker-registry`.

use std::fs;
use std::time::Duration;

use super::command::Running;
use super::environment::TestEnvironment;

/// `me` with the password `secret`, as `htpasswd -B -C 4` writes it.
const USERS: &str = "me:$2b$04$V.DxhDpFV/Cn81neWlBGMOkNoWwdeyyZ2AxR4.aofdXt2yz984WK6\n";

/// How a registry is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Plain HTTP, for everybody.
    Open,
    /// TLS with a certificate of the test's own authority, and a password.
    Locked,
}

/// A running registry; it ends with this.
pub(crate) struct Registry {
    _process: Running,
    /// Host and port, as in references.
    pub(crate) host: String,
}

impl TestEnvironment {
    /// Starts a registry on this port. A [`Door::Locked`] one is called `registry.test`, and
    /// its authority's certificate is `ca.crt` in the project folder.
    pub(crate) fn registry(&self, port: u16, door: Door) -> Registry {
        let folder = self.project().join(format!("registry-{port}"));
        fs::create_dir_all(&folder).expect("a folder of the test");
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\n",
            folder.display()
        );
        let (scheme, name) = match door {
            Door::Open => {
                config += &format!("http: {{addr: '127.0.0.1:{port}'}}\n");
                ("http", "localhost")
            }
            Door::Locked => {
                self.make_certificates(&folder);
                fs::write(folder.join("users"), USERS).expect("a file of the test");
                config += &format!(
                    "http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {0}/server.crt, key: {0}/server.key}}}}\n\
                     auth: {{htpasswd: {{realm: test, path: {0}/users}}}}\n",
                    folder.display()
                );
                // Only this machine knows the name.
                let hosts = folder.join("hosts");
                fs::write(&hosts, "127.0.0.1 localhost registry.test\n").expect("a file of the test");
                self.host(&["mount", "--bind", hosts.to_str().expect("a plain path"), "/etc/hosts"]).ok();
                ("https", "registry.test")
            }
        };
        let path = folder.join("config.yml");
        fs::write(&path, config).expect("a file of the test");
        let mut command = self.command("docker-registry");
        command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
        let process = Running::start(command, format!("docker-registry ({scheme})"));
        super::eventually("the registry", Duration::from_secs(10), || {
            self.connect(&format!("127.0.0.1:{port}")).map(drop)
        });
        Registry { _process: process, host: format!("{name}:{port}") }
    }

    /// An authority `ca.crt` in the project folder, and a certificate of it in `folder`.
    fn make_certificates(&self, folder: &std::path::Path) {
        let script = "
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=test authority' \
                -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=registry.test' -keyout server.key -out server.csr
            printf 'subjectAltName=DNS:registry.test\\nbasicConstraints=CA:FALSE\\n' >extensions
            openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt
            cp ca.crt \"$OLDPWD\"";
        let script = format!("set -e; cd '{}'; {script}", folder.display());
        self.host(&["bash", "-c", &script]).ok();
    }
}

//! Names, isolation, and ports on the host.

mod root {
    use std::time::Duration;

    use crate::support::{TestEnvironment, eventually, require};

    #[test]
    fn services_find_each_other_by_name_alias_and_container_name() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  server:
    image: busybox:latest
    command: [sh, -c, 'echo from the server >/tmp/index.html; exec httpd -f -p 80 -h /tmp']
    stop_signal: SIGKILL
    networks: {default: {aliases: [also-known-as]}}
  client: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL}
",
        );
        env.hoist(&["up", "-d"]).ok();
        for name in ["server", "also-known-as", "project-server-1"] {
            let url = format!("http://{name}/");
            let said = eventually("an answer", Duration::from_secs(10), || {
                let got = env.hoist(&["exec", "-T", "client", "wget", "-q", "-O", "-", &url]);
                if got.code == 0 { Ok(got.ok()) } else { Err(got.stderr.clone()) }
            });
            assert_eq!(said, "from the server\n", "{name}");
        }
        env.hoist(&["exec", "-T", "client", "nslookup", "nobody"]).fails_with(1);
    }

    #[test]
    fn networks_are_isolated_from_each_other() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  a: {image: 'busybox:latest', command: [nc, -ll, -p, '80', -e, echo, hello], stop_signal: SIGKILL, networks: [one]}
  b: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL, networks: [two]}
  c: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL, networks: [one]}
networks: {one: {}, two: {}}
",
        );
        env.hoist(&["up", "-d"]).ok();
        let address = env.hoist(&["exec", "-T", "a", "hostname", "-i"]).ok().trim().to_owned();
        let greeting = format!("nc -w 2 {address} 80 </dev/null | grep hello");
        eventually("an answer in the same network", Duration::from_secs(5), || {
            let got = env.hoist(&["exec", "-T", "c", "sh", "-c", &greeting]);
            if got.code == 0 { Ok(()) } else { Err(got.stderr.clone()) }
        });
        assert_ne!(env.hoist(&["exec", "-T", "b", "sh", "-c", &greeting]).code, 0);
        assert_ne!(env.hoist(&["exec", "-T", "b", "nslookup", "a"]).code, 0, "its name is not known either");
    }

    #[test]
    fn published_ports_answer_on_the_addresses_asked_for() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web:
    image: busybox:latest
    command: [sh, -c, 'nc -ll -p 81 -e echo from 81 & exec nc -ll -p 80 -e echo hello']
    stop_signal: SIGKILL
    ports: ['8080:80', '127.0.0.1:8081:80', '[::1]:8082:80', '8083-8084:80-81', '80']
",
        );
        env.hoist(&["up", "-d"]).ok();
        let random = env.hoist(&["port", "web", "80"]).ok();
        let random = random.trim().rsplit(':').next().expect("an address with a port").to_owned();
        for (address, wanted) in [
            ("127.0.0.1:8080", "hello"),
            ("[::1]:8080", "hello"),
            ("127.0.0.1:8081", "hello"),
            ("[::1]:8082", "hello"),
            ("127.0.0.1:8083", "hello"),
            ("127.0.0.1:8084", "from 81"),
            (&format!("127.0.0.1:{random}"), "hello"),
        ] {
            let said = eventually(address, Duration::from_secs(5), || match env.read_all(address) {
                Ok(text) if !text.is_empty() => Ok(text),
                other => Err(format!("{other:?}")),
            });
            assert_eq!(said.trim(), wanted, "{address}");
        }
        assert!(env.connect("[::1]:8081").is_err(), "published on 127.0.0.1 only");
        assert!(env.connect("127.0.0.1:8082").is_err(), "published on ::1 only");
    }

    #[test]
    fn the_name_of_a_service_gives_all_its_replicas() {
        require!(Root);
        let env = TestEnvironment::with_busybox();
        env.compose(
            "
services:
  web: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL, deploy: {replicas: 3}}
  client: {image: 'busybox:latest', command: [sleep, '1000'], stop_signal: SIGKILL}
",
        );
        env.hoist(&["up", "-d"]).ok();
        let answer = env.hoist(&["exec", "-T", "client", "nslookup", "web"]).ok();
        let (_, answer) = answer.split_once("Name:").unwrap_or_else(|| panic!("no answer in {answer}"));
        assert_eq!(answer.matches("Address").count(), 3, "{answer}");
    }
}

//! Volumes on a real file system.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

fn volumes() -> (tempfile::TempDir, Volumes) {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let volumes = Volumes::new(&Root::new(Some(dir.path())));
    (dir, volumes)
}

fn spec(name: &str, options: &[(&str, &str)]) -> VolumeSpec {
    VolumeSpec {
        name: name.to_owned(),
        driver_opts: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..VolumeSpec::default()
    }
}

#[test]
fn creating_twice_gives_one_volume_and_other_options_conflict() {
    let (_dir, volumes) = volumes();
    let first = volumes.create(&spec("data", &[])).expect("made");
    assert_eq!(volumes.create(&spec("data", &[])).expect("there").created, first.created);
    assert!(first.data.is_dir());
    let other = spec("data", &[("type", "tmpfs"), ("device", "tmpfs")]);
    assert!(matches!(volumes.create(&other), Err(VolumeError::Conflict { .. })));
    assert_eq!(volumes.list().expect("listed").len(), 1);
    let used = volumes.remove("data", &|_| vec!["web".to_owned()]).expect_err("in use");
    assert_eq!(used.to_string(), "volume `data` is in use by web");
    volumes.remove("data", &|_| Vec::new()).expect("removed");
    assert!(volumes.get("data").expect("read").is_none() && !first.data.exists());
    assert!(matches!(volumes.remove("data", &|_| Vec::new()), Err(VolumeError::NotFound(_))));
}

#[test]
fn bad_names_and_options_are_refused() {
    let (_dir, volumes) = volumes();
    for name in ["", "a", ".a", "a/b", "..", "a b"] {
        assert!(matches!(volumes.create(&spec(name, &[])), Err(VolumeError::Name(_))), "{name}");
    }
    assert!(volumes.create(&spec("v1", &[("size", "1")])).is_err());
    assert!(volumes.create(&spec("v1", &[("type", "tmpfs")])).is_err());
    let driver = VolumeSpec { driver: Some("rexray".to_owned()), ..spec("v1", &[]) };
    assert!(matches!(volumes.create(&driver), Err(VolumeError::Driver { .. })));
    assert!(volumes.list().expect("listed").is_empty());
}

#[test]
fn anonymous_volumes_have_random_names_and_a_label() {
    let (_dir, volumes) = volumes();
    let volume =
        volumes.create_anonymous(&Volumes::random_name(), &BTreeMap::new(), &BTreeMap::new()).expect("made");
    assert!(volume.anonymous && volume.name.len() == 64);
    assert!(volume.labels.contains_key("com.docker.volume.anonymous"));
}

mod root {
    use super::*;

    /// Two layers: the upper one hides a file of the lower one and adds one.
    fn layers(dir: &Path) -> Vec<PathBuf> {
        let (low, high) = (dir.join("low/fs"), dir.join("high/fs"));
        for (layer, name) in [(&low, "old"), (&high, "new")] {
            let data = layer.join("srv/data");
            std::fs::create_dir_all(data.join("sub")).expect("made");
            std::fs::write(data.join(name), name).expect("written");
        }
        let data = low.join("srv/data");
        std::fs::write(data.join("hidden"), "x").expect("written");
        std::fs::hard_link(data.join("old"), data.join("sub/again")).expect("linked");
        std::os::unix::fs::symlink("../old", data.join("sub/link")).expect("linked");
        std::os::unix::fs::chown(data.join("old"), Some(5), Some(6)).expect("owned");
        let data = high.join("srv/data");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            data.join("hidden"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .expect("made");
        std::os::unix::fs::chown(&data, Some(999), Some(998)).expect("owned");
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o1770)).expect("set");
        std::os::unix::fs::symlink("/srv", high.join("link")).expect("linked");
        vec![high, low]
    }

    #[test]
    fn an_empty_volume_takes_the_images_content_once() {
        let (dir, volumes) = volumes();
        let layers = layers(dir.path());
        let volume = volumes.create(&spec("data", &[])).expect("made");
        assert!(volumes.fill(&volume, &layers, "/srv/data").expect("filled"));
        let read = |name: &str| std::fs::read_to_string(volume.data.join(name));
        assert_eq!(read("new").expect("read"), "new");
        assert_eq!(read("old").expect("read"), "old");
        assert!(read("hidden").is_err());
        let meta = |name: &str| std::fs::symlink_metadata(volume.data.join(name)).expect("there");
        assert_eq!((meta("").uid(), meta("").gid(), meta("").mode() & 0o7777), (999, 998, 0o1770));
        assert_eq!((meta("old").uid(), meta("old").gid()), (5, 6));
        assert_eq!(meta("old").ino(), meta("sub/again").ino());
        assert_eq!(std::fs::read_link(volume.data.join("sub/link")).expect("read").to_str(), Some("../old"));
        // It has content now, so that nothing is copied again, also not what was deleted.
        std::fs::remove_file(volume.data.join("new")).expect("removed");
        assert!(!volumes.fill(&volume, &layers, "/srv/data").expect("looked"));
        assert!(read("new").is_err());
        // A killed copy is completed.
        std::fs::write(volume.data.with_file_name("filling"), "").expect("written");
        assert!(volumes.fill(&volume, &layers, "/srv/data").expect("filled"));
        assert_eq!(read("new").expect("read"), "new");
    }

    #[test]
    fn a_path_through_a_link_of_the_image_stays_in_the_image() {
        let (dir, volumes) = volumes();
        let layers = layers(dir.path());
        let volume = volumes.create(&spec("data", &[])).expect("made");
        assert!(volumes.fill(&volume, &layers, "/link/data").expect("filled"));
        assert!(volume.data.join("new").exists());
        let other = volumes.create(&spec("other", &[])).expect("made");
        assert!(!volumes.fill(&other, &layers, "/nothing/there").expect("looked"));
    }

    #[test]
    fn two_fillers_at_once_make_one_copy() {
        let (dir, volumes) = volumes();
        let layers = layers(dir.path());
        let volume = volumes.create(&spec("data", &[])).expect("made");
        let filled: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| usize::from(volumes.fill(&volume, &layers, "/srv/data").expect("filled")))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(filled, 1);
    }

    #[test]
    fn tmpfs_and_bind_volumes_are_what_their_options_say() {
        let (dir, volumes) = volumes();
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=77,noexec")];
        let volume = volumes.create(&spec("mem", &options)).expect("made");
        let attached = volumes.attach(&volume).expect("mounted");
        assert_eq!(std::fs::metadata(&attached.directory).expect("there").uid(), 77);
        std::fs::write(attached.directory.join("f"), "x").expect("written");
        // Attaching again shows the same file system.
        assert!(volumes.attach(&volume).expect("mounted").directory.join("f").exists());
        assert!(std::fs::write(attached.directory.join("big"), vec![0; 2 << 20]).is_err());
        volumes.detach(&volume).expect("unmounted");
        assert!(!attached.directory.join("f").exists());
        volumes.attach(&volume).expect("mounted");
        volumes.remove("mem", &|_| Vec::new()).expect("removed");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
        assert!(!mounts.contains(&dir.path().display().to_string()));

        let host = dir.path().join("host");
        let options = [("type", "none"), ("o", "bind,ro"), ("device", host.to_str().expect("text"))];
        let volume = volumes.create(&spec("bound", &options)).expect("made");
        assert!(volumes.attach(&volume).expect_err("missing").to_string().contains("cannot mount"));
        std::fs::create_dir(&host).expect("made");
        std::fs::write(host.join("keep"), "").expect("written");
        let attached = volumes.attach(&volume).expect("there");
        assert_eq!(attached, Attached { directory: host.clone(), read_only: true });
        volumes.remove("bound", &|_| Vec::new()).expect("removed");
        assert!(host.join("keep").exists());
    }
}

#[test]
fn what_a_killed_creation_left_is_removed_and_nothing_else() {
    let (dir, volumes) = volumes();
    let volumes_dir = Root::new(Some(dir.path())).volumes();
    let name = Volumes::random_name();
    std::fs::create_dir_all(volumes_dir.join("begun")).expect("a directory without a record");
    let kept = volumes.create(&spec("kept", &[])).expect("made");
    let promised = volumes.create_anonymous(&name, &BTreeMap::new(), &BTreeMap::new()).expect("made");
    volumes.repair().expect("repaired");
    assert!(!volumes_dir.join("begun").exists());
    assert!(kept.data.is_dir() && promised.data.is_dir());
    volumes.discard(&name).expect("discarded");
    volumes.discard("never-made").expect("nothing to discard");
    assert!(!volumes_dir.join(&name).exists() && kept.data.is_dir());
}

//! Whole ways through the store, with archives made by other programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::runtime::root::Root;
use ::tar;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let store = Store::open(&Root::new(Some(dir.path()))).expect("opens");
    (dir, store)
}

fn quiet(_: Event) {}

/// Everything of a tree that matters: type, mode, owner, size, time, link, content.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).expect("listed") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("there");
            let content = if meta.is_symlink() {
                fs::read_link(&path).expect("a link").display().to_string()
            } else if meta.is_file() {
                Digest::of(&fs::read(&path).expect("readable")).to_string()
            } else {
                String::new()
            };
            let size = if meta.is_dir() { 0 } else { meta.size() };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            // GNU tar does not set the times of devices.
            let time = if meta.is_file() || meta.is_dir() || meta.is_symlink() { meta.mtime() } else { 0 };
            let mut value = [0; 64];
            let mut attribute = |name| match rustix::fs::lgetxattr(&path, name, &mut value[..]) {
                Ok(length) => crate::util::ids::hex(&value[..length]),
                Err(_) => "-".to_owned(),
            };
            let content = format!("{content} {} {}", attribute("user.x"), attribute("security.capability"));
            let line = format!(
                "{:o} {}:{} {size} {links} {time} {:x} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev()
            );
            out.insert(path.strip_prefix(root).expect("below").display().to_string(), line);
            if meta.is_dir() {
                walk(root, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

fn sh(script: &str, dir: &Path) {
    let status = Command::new("bash").args(["-euc", script]).current_dir(dir).status().expect("bash runs");
    assert!(status.success(), "{script}");
}

/// Imports the tarball and gives its layer directory.
fn import(store: &Store, tarball: &Path) -> Result<(Image, std::path::PathBuf)> {
    let import = Import { reference: Some("t:1".to_owned()), ..Import::default() };
    store.import(fs::File::open(tarball).expect("opens"), &import, &quiet)?;
    let image = store.resolve("t:1", None)?.expect("is there");
    let layer = image.layers[0].parent().expect("a layer").to_owned();
    Ok((image, layer))
}

/// Regenerates the tar from the layer and compares it with the original.
fn assert_regenerates(store: &Store, layer: &Path, tarball: &[u8]) {
    let meta = store.meta(layer.file_name().expect("a key").to_str().expect("hex")).expect("meta");
    let mut out = Vec::new();
    journal::replay(layer, &meta.shadows, &mut out).expect("replays");
    assert_eq!(Digest::of(&out), Digest::of(tarball), "the journal must give the same tar");
    assert_eq!(meta.tar_size, out.len() as u64);
}

/// One hand-made tar entry.
fn entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(0o644 | if kind == b'5' { 0o111 } else { 0 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(data.len() as u64);
    if matches!(kind, b'3' | b'4') {
        header.set_device_major(1).expect("ustar");
        header.set_device_minor(3).expect("ustar");
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Imports these bytes as a layer beside a canary directory that must stay as it is.
fn import_bytes(bytes: &[u8]) -> (tempfile::TempDir, Store, Result<(Image, std::path::PathBuf)>) {
    let (dir, store) = store();
    let path = dir.path().join("in.tar");
    fs::write(&path, bytes).expect("written");
    let result = import(&store, &path);
    (dir, store, result)
}

mod root {
    use super::*;

    #[test]
    fn a_layer_is_what_gnu_tar_makes_of_it() {
        let (dir, store) = store();
        sh(
            r"mkdir src; cd src
              mkdir -p a/b 'sp ace' empty; echo hi > a/f; ln a/f a/hard; ln -s ../a/f sp\ ace/sym; ln -s /etc/passwd abs
              mkfifo fifo; mknod null c 1 3; mknod blk b 7 9; : > zero; chmod 4755 a/f; chmod 1777 empty; chown 1000:50 a
              head -c 3000000 /dev/urandom > big; truncate -s 5M sparse; echo end >> sparse
              n=$(printf 'n%.0s' $(seq 200)); mkdir $n; echo long > $n/$n; ln -s $n/$n/$n/$n longlink
                            touch -d 2001-02-03T04:05:06 a a/f empty; touch -h -d 2002-02-02 abs; chmod 0700 a/b",
            dir.path(),
        );
        let big = dir.path().join("src/big");
        rustix::fs::setxattr(&big, "user.x", b"y", rustix::fs::XattrFlags::empty()).expect("set");
        // cap_net_raw+ep, version 2
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let zero = dir.path().join("src/zero");
        rustix::fs::setxattr(&zero, "security.capability", &capability, rustix::fs::XattrFlags::empty())
            .expect("set");
        for (format, options) in [
            ("gnu", ""),
            ("pax", "--xattrs --xattrs-include=*"),
            ("posix", "--sparse"),
            ("gnu", "--sparse"),
            ("ustar", "--exclude=./n* --exclude=./longlink"),
            ("v7", "--exclude=./n* --exclude=./longlink --exclude=./fifo --exclude=./blk"),
        ] {
            sh(
                &format!(
                    "rm -rf want in.tar; tar --numeric-owner --format={format} {options} -cf in.tar -C src . ;\
                     mkdir want; tar --numeric-owner -p {} -xf in.tar -C want",
                    if options.starts_with("--x") { "--xattrs --xattrs-include=*" } else { "" }
                ),
                dir.path(),
            );
            let (_image, layer) = import(&store, &dir.path().join("in.tar")).expect("imported");
            assert_eq!(tree(&layer.join("fs")), tree(&dir.path().join("want")), "{format} {options}");
            let tarball = fs::read(dir.path().join("in.tar")).expect("read");
            assert_regenerates(&store, &layer, &tarball);
        }
        sh("gzip -k in.tar; zstd -q in.tar", dir.path());
        let id = |name: &str| import(&store, &dir.path().join(name)).expect("imported").0.config.rootfs;
        assert_eq!(id("in.tar"), id("in.tar.gz"));
        assert_eq!(id("in.tar"), id("in.tar.zst"));
    }

    #[test]
    fn nothing_is_written_outside_whatever_the_archive_says() {
        let canary = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let target = canary.path().display().to_string();
        fs::write(canary.path().join("f"), "canary").expect("written");
        let before = tree(canary.path());
        let up = format!("../../../../../../../../../../../..{target}");
        let file = |name: &str| entry(name, b'0', "", b"evil");
        let link = |name: &str, to: &str| entry(name, b'2', to, b"");
        let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
            ("dot dot", vec![file("../evil")]),
            ("inner dot dot", vec![file("a/../../evil")]),
            ("absolute name", vec![file(&format!("{target}/evil"))]),
            ("absolute link", vec![link("l", &target), file("l/evil")]),
            ("relative link", vec![link("l", &up), file("l/evil")]),
            ("link to the file", vec![link("l", &format!("{target}/f")), file("l")]),
            ("hard link out", vec![entry("h", b'1', &format!("{target}/f"), b"")]),
            ("hard link dot dot", vec![entry("h", b'1', &format!("{up}/f"), b"")]),
            ("hard link by a link", vec![link("l", &target), entry("h", b'1', "l/f", b""), file("h")]),
            (
                "hard link to a link",
                vec![link("l", &format!("{target}/f")), entry("h", b'1', "l", b""), file("h/x")],
            ),
            ("dangling", vec![link("l", &format!("{target}/new")), file("l/evil")]),
            ("whiteout", vec![link("l", &target), entry("l/.wh.f", b'0', "", b"")]),
            ("whiteout of dot dot", vec![entry("d/", b'5', "", b""), entry("d/.wh...", b'0', "", b"")]),
            ("opaque", vec![link("l", &target), entry("l/.wh..wh..opq", b'0', "", b"")]),
            (
                "replaced directory",
                vec![
                    entry("d/", b'5', "", b""),
                    file("d/x"),
                    entry("d2/", b'5', "", b""),
                    link("d", &target),
                    file("d/evil"),
                ],
            ),
            ("root as a link", vec![link(".", &target), file("evil")]),
            ("root as a file", vec![file("/")]),
            ("device", vec![entry("dev", b'3', "", b""), file("dev/x")]),
            ("magic link", vec![link("l", "/proc/self/root"), file(&format!("l{target}/evil"))]),
        ];
        for (name, entries) in cases {
            let (dir, _store, result) = import_bytes(&archive(&entries));
            assert_eq!(tree(canary.path()), before, "{name}: the canary is untouched");
            if let Ok((_, layer)) = &result {
                // What was written is below the layer, as an ordinary tree.
                for path in tree(&layer.join("fs")).keys() {
                    assert!(!path.contains(".."), "{name}: {path}");
                }
            }
            let left: Vec<_> = fs::read_dir(dir.path().join("images/staging"))
                .expect("listed")
                .filter(|e| e.as_ref().expect("an entry").file_type().expect("a type").is_dir())
                .collect();
            assert!(left.is_empty(), "{name}: staging is clean");
        }
    }

    #[test]
    fn later_entries_win_and_the_tar_is_still_regenerated() {
        let d = |name: &str| entry(name, b'5', "", b"");
        let f = |name: &str, data: &str| entry(name, b'0', "", data.as_bytes());
        let bytes = archive(&[
            f("a", "one"),
            f("a", "two"),
            d("dir/"),
            f("dir/x", "in the old directory"),
            f("dir", "now a file"),
            entry("l", b'2', "a", b""),
            f("l", "was a link"),
            f("a", ""),
            f("a", "three"),
            d("dir2/"),
            f("dir2/deep", "kept"),
            d("dir2/"),
            d("l/"),
            f("l/y", "z"),
        ]);
        let (_dir, store, result) = import_bytes(&bytes);
        let (_, layer) = result.expect("imported");
        let read = |name: &str| fs::read_to_string(layer.join("fs").join(name)).expect("read");
        assert_eq!(read("a"), "three");
        assert_eq!(read("dir"), "now a file");
        assert_eq!(read("dir2/deep"), "kept");
        assert_eq!(read("l/y"), "z");
        assert_regenerates(&store, &layer, &bytes);
    }

    #[test]
    fn whiteouts_become_what_overlay_wants() {
        let bytes = archive(&[
            entry("d/", b'5', "", b""),
            entry("d/.wh.gone", b'0', "", b""),
            entry("o/", b'5', "", b""),
            entry("o/.wh..wh..opq", b'0', "", b""),
            entry("o/new", b'0', "", b"x"),
            entry(".wh.replaced", b'0', "", b""),
            entry("replaced/", b'5', "", b""),
            entry("d/.wh..wh.plnk", b'5', "", b""),
        ]);
        let (_dir, store, result) = import_bytes(&bytes);
        let (_, layer) = result.expect("imported");
        let fs_dir = layer.join("fs");
        let gone = fs::symlink_metadata(fs_dir.join("d/gone")).expect("there");
        assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0));
        let opaque = |name: &str| {
            let mut value = [0; 4];
            let got = rustix::fs::getxattr(fs_dir.join(name), "trusted.overlay.opaque", &mut value[..]);
            got.is_ok_and(|n| &value[..n] == b"y")
        };
        assert!(opaque("o") && opaque("replaced") && !opaque("d"));
        assert!(!fs_dir.join("d/.wh..wh.plnk").exists());
        assert_regenerates(&store, &layer, &bytes);
    }

    #[test]
    fn implied_directories_look_as_in_the_layer_below() {
        let (dir, store) = store();
        let tmp = {
            let mut bytes = entry("tmp/", b'5', "", b"");
            let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
            header.set_mode(0o1777);
            header.set_uid(7);
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
            bytes
        };
        let base = archive(&[tmp]);
        let upper = archive(&[entry("tmp/a/b/file", b'0', "", b"x")]);
        let config = ImageConfig {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            rootfs: RootFs { diff_ids: vec![Digest::of(&base), Digest::of(&upper)], ..RootFs::default() },
            ..ImageConfig::default()
        };
        let config = serde_json::to_vec(&config).expect("encodes");
        let mut out = tar::Builder::new(Vec::new());
        let manifest = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["0.tar","1.tar"]}]"#;
        for (name, data) in
            [("0.tar", &base[..]), ("1.tar", &upper), ("c.json", &config), ("manifest.json", manifest)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            out.append_data(&mut header, name, data).expect("appended");
        }
        let path = dir.path().join("a.tar");
        fs::write(&path, out.into_inner().expect("finished")).expect("written");
        let loaded = store.load(Input::Path(path), None, &quiet).expect("loaded");
        assert_eq!(loaded[0].tags, ["a:1"]);
        let image = store.resolve("a:1", None).expect("resolves").expect("there");
        let meta = fs::metadata(image.layers[0].join("tmp")).expect("there");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o1777, 7));
        assert_eq!(fs::metadata(image.layers[0].join("tmp/a")).expect("there").mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_saved_image_comes_back_the_same_and_saving_is_repeatable() {
        let (dir, store) = store();
        sh("mkdir src; echo hi > src/f; ln src/f src/g; tar cf in.tar -C src .", dir.path());
        let (image, _) = import(&store, &dir.path().join("in.tar")).expect("imported");
        let save = |name: &str| {
            let mut out = Vec::new();
            store.save(&[name.to_owned()], None, &mut out).expect("saved");
            out
        };
        let bytes = save("t:1");
        assert_eq!(Digest::of(&bytes), Digest::of(&save("t:1")));
        let (_other_dir, other) = self::store();
        let input = Input::Stream(Box::new(std::io::Cursor::new(bytes)));
        let loaded = other.load(input, None, &quiet).expect("loaded");
        assert_eq!(loaded, [Loaded { id: image.id.clone(), tags: vec!["t:1".to_owned()] }]);
        let again = other.resolve("t:1", None).expect("resolves").expect("there");
        assert_eq!(tree(&again.layers[0]), tree(&image.layers[0]));
        let by_id = Input::Stream(Box::new(std::io::Cursor::new(save(image.id.short()))));
        let (_third_dir, third) = self::store();
        assert!(third.load(by_id, None, &quiet).expect("loaded")[0].tags.is_empty());
    }

    #[test]
    fn removing_keeps_what_others_use() {
        let (dir, store) = store();
        sh("mkdir src; echo hi > src/f; tar cf in.tar -C src .", dir.path());
        let (image, layer) = import(&store, &dir.path().join("in.tar")).expect("imported");
        store.tag("t:1", "other:2").expect("tagged");
        let nobody = |_: &Digest| Vec::new();
        let running = |_: &Digest| vec![User { container: "web".to_owned(), running: true }];
        let stopped = |_: &Digest| vec![User { container: "web".to_owned(), running: false }];
        assert!(matches!(store.remove(image.id.short(), false, &nobody), Err(ImageError::SeveralNames(_))));
        assert_eq!(
            store.remove("t:1", false, &running).expect("one of two names"),
            [Removed::Untagged("t:1".to_owned())]
        );
        assert!(matches!(
            store.remove("other:2", false, &running),
            Err(ImageError::InUse { running: true, .. })
        ));
        assert!(matches!(store.remove("other:2", true, &running), Err(ImageError::InUse { .. })));
        assert!(matches!(
            store.remove("other:2", false, &stopped),
            Err(ImageError::InUse { running: false, .. })
        ));
        // By force the name goes and the content stays for the container.
        assert_eq!(store.remove("other:2", true, &stopped).expect("forced").len(), 1);
        assert!(layer.is_dir() && store.resolve(&image.id.to_string(), None).expect("resolves").is_some());
        assert_eq!(store.prune(false, &|_| true, &stopped).expect("pruned").removed, []);
        let pruned = store.prune(false, &|_| true, &nobody).expect("pruned");
        assert_eq!(pruned.removed[0], Removed::Deleted(image.id));
        assert!(!layer.exists() && store.list().expect("lists").is_empty());
        assert_eq!(fs::read_dir(dir.path().join("images/blobs/sha256")).expect("listed").count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let (dir, store) = store();
        let left = dir.path().join("images/staging/dead");
        fs::create_dir_all(left.join("0/fs")).expect("made");
        fs::write(left.join("lock"), "").expect("written");
        fs::create_dir_all(dir.path().join("images/staging/died-before-its-lock")).expect("made");
        fs::create_dir_all(dir.path().join("images/layers").join("a".repeat(64)).join("fs")).expect("made");
        // A document that was being written, see `write_atomic`.
        fs::write(dir.path().join("images/blobs/sha256/.half.1234"), "half").expect("written");
        store.prune(false, &|_| true, &|_| Vec::new()).expect("pruned");
        for part in ["staging", "layers", "blobs/sha256"] {
            let left = fs::read_dir(dir.path().join("images").join(part)).expect("listed").count();
            assert_eq!(left, 0, "{part}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_and_named() {
        let (dir, store) = store();
        let store = store.with_limits(Limits { ratio_from: 8 << 20, ..Limits::default() });
        let path = dir.path().join("bomb.tar.gz");
        let mut header = tar::Header::new_gnu();
        header.set_path("zeros").expect("short");
        header.set_size(64 << 20);
        header.set_cksum();
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(header.as_bytes()).expect("written");
        out.write_all(&vec![0; (64 << 20) + 1024]).expect("written");
        fs::write(&path, out.finish().expect("finished")).expect("written");
        let error = import(&store, &path).expect_err("stopped");
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(text.contains("decompression bomb"), "{text}");
    }

    #[test]
    fn damaged_archives_say_what_is_wrong() {
        let good = archive(&[entry("a", b'0', "", &[7; 5000])]);
        for (bytes, wanted) in [
            (good[..3000].to_vec(), "ends in the middle"),
            (b"this is no tar at all".repeat(100), "not a tar archive"),
            ([&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 600]].concat(), "cannot decompress"),
            ([&b"BZh9"[..], &[1; 600]].concat(), "bzip2"),
        ] {
            let (_dir, store, result) = import_bytes(&bytes);
            let text = format!("{:#}", anyhow::Error::new(result.expect_err("refused")));
            assert!(text.contains(wanted), "{text}");
            assert!(store.list().expect("lists").is_empty());
        }
    }
}

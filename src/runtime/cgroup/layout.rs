//! Which cgroup hierarchies the machine has.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{CgroupError, set};

/// One mounted hierarchy that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    mount_point: PathBuf,
    /// Controllers; for v2 those that the root offers.
    controllers: Vec<String>,
    unified: bool,
}

impl Hierarchy {
    /// Where it is mounted on the host.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Whether it is the v2 one.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Its controllers.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Whether it has `controller`.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// All hierarchies that we use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    hierarchies: Vec<Hierarchy>,
}

/// Controllers that we give a container groups in. `freezer` is among them only
/// without v2, which freezes better.
const CONTROLLERS: [&str; 8] = ["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "devices", "io"];

impl Layout {
    /// The machine's layout, looked up once per process.
    pub fn get() -> &'static Self {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        LAYOUT.get_or_init(|| {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            Self::from_mounts(&mounts, |root| {
                std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
            })
        })
    }

    /// Reads the layout out of a mount table; `offered` gives the text of a v2
    /// root's `cgroup.controllers`.
    fn from_mounts(mounts: &str, offered: impl Fn(&Path) -> String) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            let (Some(_), Some(point), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let mount_point = PathBuf::from(point);
            let (controllers, unified) = match kind {
                "cgroup2" => (offered(&mount_point).split_whitespace().map(str::to_owned).collect(), true),
                // A named hierarchy (`name=systemd`) has no controllers.
                "cgroup" => {
                    (options.split(',').filter(|o| is_used(o)).map(str::to_owned).collect::<Vec<_>>(), false)
                }
                _ => continue,
            };
            let known =
                hierarchies.iter().any(|h| h.unified == unified && (unified || h.controllers == controllers));
            if !known && (unified || !controllers.is_empty()) {
                hierarchies.push(Hierarchy { mount_point, controllers, unified });
            }
        }
        if hierarchies.iter().any(|h| h.unified) {
            hierarchies.retain(|h| h.unified || h.controllers != ["freezer"]);
        }
        Self { hierarchies }
    }

    /// The hierarchies.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The v2 hierarchy.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.unified)
    }

    /// The v1 hierarchy of `controller`.
    pub fn legacy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| !h.unified && h.has(controller))
    }

    /// Whether all controllers are on v2 (no v1 hierarchy is mounted).
    pub fn is_pure_unified(&self) -> bool {
        self.hierarchies.iter().all(|h| h.unified) && !self.hierarchies.is_empty()
    }

    /// Makes the directories above the last part of `path`, and on v2 hands all
    /// controllers down to them. Done once per parent, not per container: the first
    /// hand-down takes the same slow lock as writing to `cgroup.procs`.
    pub(super) fn make_parents(hierarchy: &Hierarchy, path: &str) -> Result<(), CgroupError> {
        let mut directory = hierarchy.mount_point.clone();
        let mut parts = path.split('/').filter(|p| !p.is_empty()).peekable();
        loop {
            if hierarchy.unified {
                hand_down(hierarchy, &directory)?;
            }
            if hierarchy.has("cpuset") && !hierarchy.unified {
                inherit_cpuset(hierarchy, &directory)?;
            }
            let Some(part) = parts.next() else { break };
            if parts.peek().is_none() {
                break;
            }
            directory.push(part);
            match std::fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(CgroupError::new("create", directory.display().to_string(), error));
                }
            }
        }
        Ok(())
    }
}

fn is_used(option: &str) -> bool {
    CONTROLLERS.contains(&option) || option == "freezer"
}

/// Enables every controller that `directory` offers for its children (v2).
fn hand_down(hierarchy: &Hierarchy, directory: &Path) -> Result<(), CgroupError> {
    let enabled = std::fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    let file = directory.join("cgroup.subtree_control");
    for controller in &hierarchy.controllers {
        let wanted = CONTROLLERS.contains(&controller.as_str());
        if wanted && !enabled.split_whitespace().any(|e| e == controller) {
            set(&file, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// A new v1 cpuset group is empty, and nothing can run in it or below it before
/// it has processors and memory nodes: takes the parent's. A parent that somebody
/// else made a moment ago may be empty itself, and is seen to first.
pub(super) fn inherit_cpuset(hierarchy: &Hierarchy, directory: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        if own.trim().is_empty()
            && directory != hierarchy.mount_point
            && let Some(parent) = directory.parent()
        {
            inherit_cpuset(hierarchy, parent)?;
            let inherited = super::read(&parent.join(file))?;
            set(&directory.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A v2 hierarchy with these controllers, for tests of settings.
    pub(in super::super) fn unified(controllers: &[&str]) -> Hierarchy {
        let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
        Hierarchy { mount_point: "/sys/fs/cgroup".into(), controllers, unified: true }
    }

    /// A v1 hierarchy with these controllers.
    pub(in super::super) fn legacy(controllers: &[&str]) -> Hierarchy {
        Hierarchy { unified: false, ..unified(controllers) }
    }

    fn points(layout: &Layout) -> Vec<String> {
        layout.hierarchies.iter().map(|h| h.mount_point.display().to_string()).collect()
    }

    #[test]
    fn a_v2_machine_has_one_hierarchy_with_the_offered_controllers() {
        let mounts = "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let layout = Layout::from_mounts(mounts, |_| "cpuset cpu io memory hugetlb pids".to_owned());
        assert_eq!(points(&layout), ["/sys/fs/cgroup"]);
        assert!(layout.is_pure_unified());
        assert!(layout.unified().expect("v2").has("memory"));
        assert!(layout.legacy("memory").is_none());
    }

    #[test]
    fn joined_controllers_are_one_hierarchy_and_named_ones_are_left_out() {
        let mounts = "\
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup /sys/fs/cgroup/net_cls cgroup rw,relatime,net_cls 0 0
";
        let layout = Layout::from_mounts(mounts, |_| String::new());
        assert_eq!(
            points(&layout),
            ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/freezer"]
        );
        assert!(!layout.is_pure_unified());

        let hybrid = format!("{mounts}cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n");
        let layout = Layout::from_mounts(&hybrid, |_| "hugetlb".to_owned());
        assert!(layout.legacy("freezer").is_none(), "v2 freezes");
        assert!(layout.unified().is_some());
    }
}

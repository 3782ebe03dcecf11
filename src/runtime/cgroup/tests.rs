//! Groups of the real machine (need root).

use super::*;
use crate::spec::ResourceSpec;
use crate::util::ids::random_hex;

#[test]
fn groups_made_at_once_below_one_new_parent_can_all_be_entered() {
    if !rustix::process::geteuid().is_root() || Layout::get().hierarchies().is_empty() {
        return;
    }
    let Some(cpuset) = Layout::get().legacy("cpuset") else { return };
    for _ in 0..50 {
        let parent = format!("hoist-test-{}", random_hex(6));
        // Made anew for every round: whoever comes first makes it, and the others must not
        // find it before it has processors.
        std::thread::scope(|threads| {
            for number in 0..6 {
                let path = format!("{parent}/{number}");
                threads.spawn(move || {
                    let plan = CgroupPlan { path, resources: ResourceSpec::default(), devices: Vec::new() };
                    let (group, _) = Cgroup::create(&plan).expect("made");
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let text = read(&group.directory(cpuset).join(file)).expect("read");
                        assert!(!text.trim().is_empty(), "{file} of {}", group.path());
                    }
                    group.remove().expect("removed");
                });
            }
        });
        assert!(!Cgroup::at(&parent).exists(), "{parent} stays");
    }
}

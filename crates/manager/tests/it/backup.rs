//! Runs of a backup job that nothing cuts short.

use crate::scene::{Fate, Scene, machine_id};
use platform::contract::{AgentPresence, MachineKey};
use protocol::words::point::{Consistency, PointKind};
use protocol::words::session::{SessionState, Stop};
use std::sync::Arc;

#[test]
fn the_first_run_is_full_the_second_reads_changes_and_builds_on_the_first() {
    let scene = Scene::new();
    assert_eq!(scene.run(), SessionState::Success, "{:?}", scene.codes());
    scene.platform.work(&scene.machine, 5).unwrap();
    assert_eq!(scene.run(), SessionState::Success, "{:?}", scene.codes());
    let kept = scene.kept.lock().unwrap();
    let kinds: Vec<_> = kept.points.iter().map(|point| point.kind).collect();
    assert_eq!(kinds, [PointKind::Full, PointKind::Incremental]);
    assert_eq!(kept.points[1].draft.parent, Some(kept.points[0].id));
    assert_eq!(kept.points[0].draft.consistency, Consistency::FileSystem);
    assert_eq!(kept.points[0].draft.machine.id, machine_id(&scene.machine));
    assert!(
        !kept.points[0].files.is_empty(),
        "the machine's definition is in the point"
    );
    drop(kept);
    scene.assert_clean("after two runs");
    let tokens = scene.platform.tracker_tokens();
    assert_eq!(tokens.len(), 1, "older trackers go: {tokens:?}");
}

#[test]
fn lost_trackers_make_a_full_read_with_a_warning_and_a_point_all_the_same() {
    type Mischief = fn(&Scene);
    let lose: Mischief = |scene| {
        let token = scene.platform.tracker_tokens()[0].to_string();
        scene.platform.lose_tracker(&scene.machine, &token).unwrap();
    };
    let kill: Mischief = |scene| scene.platform.kill(&scene.machine).unwrap();
    let resize: Mischief = |scene| {
        let larger = base::size::ByteCount(3 << 20);
        scene
            .platform
            .resize(&scene.machine, "vdb", larger)
            .unwrap();
    };
    for (what, mischief) in [("lost", lose), ("killed", kill), ("resized", resize)] {
        let scene = Scene::new();
        assert_eq!(scene.run(), SessionState::Success);
        mischief(&scene);
        assert_eq!(scene.run(), SessionState::Warning, "{what}");
        assert!(
            scene
                .codes()
                .iter()
                .any(|code| code == "backup.tracker-lost"),
            "{what}"
        );
        assert_eq!(scene.kept.lock().unwrap().points.len(), 2, "{what}");
        scene.assert_clean(what);
        assert_eq!(
            scene.run(),
            SessionState::Success,
            "{what}: and then all is well again"
        );
    }
}

#[test]
fn without_an_agent_the_point_is_as_after_a_power_cut_and_says_so() {
    let scene = Scene::new();
    scene
        .platform
        .set_agent(&scene.machine, AgentPresence::NoChannel)
        .unwrap();
    assert_eq!(scene.run(), SessionState::Warning);
    assert!(scene.codes().iter().any(|code| code == "backup.not-frozen"));
    let kept = scene.kept.lock().unwrap();
    assert_eq!(kept.points[0].draft.consistency, Consistency::Crash);
}

#[test]
fn retention_keeps_the_newest_and_frees_what_went() {
    let mut scene = Scene::new();
    scene.keep_points = 2;
    for _ in 0..4 {
        assert_eq!(scene.run(), SessionState::Success, "{:?}", scene.codes());
    }
    let kept = scene.kept.lock().unwrap();
    assert_eq!(kept.points.len(), 2);
    drop(kept);
    assert!(scene.codes().iter().any(|code| code == "backup.collected"));
}

#[test]
fn a_machine_that_is_gone_fails_the_run_with_a_reason() {
    let scene = Scene::new();
    scene.platform.vanish(&scene.machine);
    assert_eq!(scene.run(), SessionState::Failed);
    assert!(
        scene
            .codes()
            .iter()
            .any(|code| code == "backup.no-machines")
    );
    scene.assert_clean("vanished");
}

#[test]
fn somebody_elses_backup_is_left_alone() {
    let scene = Scene::new();
    scene.platform.foreign_backup(&scene.machine, true).unwrap();
    assert_eq!(scene.run(), SessionState::Failed);
    assert!(
        scene
            .codes()
            .iter()
            .any(|code| code == "platform.backup.busy")
    );
    scene
        .platform
        .foreign_backup(&scene.machine, false)
        .unwrap();
    assert_eq!(scene.run(), SessionState::Success);
    scene.assert_clean("after a foreign backup");
}

#[test]
fn a_stop_before_the_end_leaves_no_point() {
    let scene = Scene::new();
    let run = scene.manager(scene.new_session(), &Arc::new(Fate::default()));
    run.desk.cancel.cancel();
    run.to_the_end().unwrap();
    assert_eq!(scene.kept.lock().unwrap().ends, [SessionState::Stopped]);
    assert!(scene.kept.lock().unwrap().points.is_empty());
    scene.assert_clean("stopped");
    let _ = Stop::Now;
    let _: &MachineKey = &scene.machine;
}

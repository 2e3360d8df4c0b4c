//! The same run, cut or failed at every deed: whatever happens, the next manager leaves nothing but
//! points, and the next run succeeds.

use crate::scene::{End, Fate, Scene};
use protocol::words::session::SessionState;
use std::sync::Arc;

/// How many deeds a second run takes.
fn deeds() -> u64 {
    let scene = prepared();
    let fate = Arc::new(Fate::default());
    scene
        .manager(scene.new_session(), &fate)
        .to_the_end()
        .unwrap();
    fate.deeds()
}

/// A site where one run has succeeded and the guest has written since.
fn prepared() -> Scene {
    let mut scene = Scene::new();
    scene.keep_points = 1;
    assert_eq!(scene.run(), SessionState::Success);
    scene.platform.work(&scene.machine, 5).unwrap();
    scene
}

#[test]
fn a_manager_that_dies_at_any_deed_is_cleaned_up_after() {
    let deeds = deeds();
    assert!(deeds > 40, "{deeds}");
    for deed in 0..deeds {
        for end in [End::DiesBefore, End::DiesAfter] {
            let scene = prepared();
            let session = scene.new_session();
            let fate = Arc::new(Fate::at(deed, end));
            let died = scene.manager(session, &fate).to_the_end();
            let when = format!("{end:?} at {deed}: {}", fate.name_of(deed));
            if died.is_err() {
                scene.recover(session);
            }
            scene.assert_clean(&when);
            assert!(
                !scene.kept.lock().unwrap().points.is_empty(),
                "{when}: no point is lost"
            );
            let next = scene.run();
            assert!(
                matches!(next, SessionState::Success | SessionState::Warning),
                "{when}: the next run ended as {next:?}: {:?}",
                scene.codes()
            );
            scene.assert_tidy(&format!("{when}, after the next run"));
        }
    }
}

#[test]
fn a_deed_that_fails_is_never_green_and_leaves_nothing() {
    let deeds = deeds();
    for deed in 0..deeds {
        for end in [End::Fails, End::AnswerLost] {
            let scene = prepared();
            let before = scene.kept.lock().unwrap().points.last().unwrap().id;
            let session = scene.new_session();
            let fate = Arc::new(Fate::at(deed, end));
            let ended = scene.manager(session, &fate).to_the_end();
            let when = format!("{end:?} at {deed}: {}", fate.name_of(deed));
            if ended.is_err() {
                scene.recover(session);
            }
            let (state, newest) = {
                let kept = scene.kept.lock().unwrap();
                (
                    kept.ends.last().cloned().unwrap(),
                    kept.points.last().unwrap().id,
                )
            };
            if matches!(state, SessionState::Success | SessionState::Warning) {
                assert_ne!(newest, before, "{when}: {state:?} without a point");
            }
            scene.assert_clean(&when);
            let next = scene.run();
            assert!(
                matches!(next, SessionState::Success | SessionState::Warning),
                "{when}: the next run ended as {next:?}"
            );
            scene.assert_tidy(&format!("{when}, after the next run"));
        }
    }
}

//! Known answers of key derivation, and slots that open for the right password only.

use super::slot::{Cost, Password, Slot};
use super::*;
use base::id::RepositoryId;
use base::random::SeededRandom;

const CHEAP: Cost = Cost {
    memory_kib: 64,
    passes: 1,
};

fn keys() -> KeySet {
    KeySet::generate(&SeededRandom::new(1))
}

const GOLDEN: [&str; 3] = [
    "def8d64600e353e5902df062bc37ab74c02eb9ae519bcac8836448a2450f2c49",
    "942b61bbaacce68640e66fb91e2ab087851817e15fd2c7381931dc059674e54e",
    "e66397109e76b1fd95e7f31b2bf56d5964e8753149b1f832e676cc697b3bef72",
];

#[test]
fn derived_keys_are_frozen() {
    let keys = keys();
    let derived = [
        slot::hex(&keys.lasting(DATA_ID)),
        slot::hex(&keys.lasting(NODE_ID)),
        slot::hex(&keys.sealing(FRAME, 1, &[3; 32]).unwrap()),
    ];
    assert_eq!(derived, GOLDEN);
}

#[test]
fn a_slot_opens_for_its_password_only() {
    let id = RepositoryId::from_bytes([5; 16]);
    let right = Password::new("correct horse");
    let slot = Slot::wrap(&keys(), &right, CHEAP, id, &SeededRandom::new(2)).unwrap();
    let opened = slot.unwrap(Some(&right), id).unwrap();
    assert_eq!(opened.lasting(DATA_ID), keys().lasting(DATA_ID));
    let wrong = slot
        .unwrap(Some(&Password::new("battery staple")), id)
        .err()
        .unwrap();
    assert_eq!(
        (wrong.kind(), wrong.code()),
        (Kind::Denied, "store.password.wrong")
    );
    assert_eq!(
        slot.unwrap(None, id).err().unwrap().code(),
        "store.password.missing"
    );
    let elsewhere = slot.unwrap(Some(&right), RepositoryId::from_bytes([6; 16]));
    assert_eq!(elsewhere.err().unwrap().code(), "store.password.wrong");
}

#[test]
fn hostile_slots_cost_nothing() {
    let id = RepositoryId::from_bytes([5; 16]);
    for (memory_kib, passes, lanes, code) in [
        (u32::MAX, 1, 1, "store.key.cost"),
        (64, u32::MAX, 1, "store.key.cost"),
        (64, 1, u32::MAX, "store.key.cost"),
        (0, 0, 0, "store.key.cost"),
    ] {
        let (salt, wrapped) = ("00".repeat(32), "00".repeat(40));
        let slot = Slot::Password {
            memory_kib,
            passes,
            lanes,
            salt,
            wrapped,
        };
        assert_eq!(
            slot.unwrap(Some(&Password::new("x")), id)
                .err()
                .unwrap()
                .code(),
            code
        );
    }
    let slot = Slot::Password {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
        salt: "zz".into(),
        wrapped: "0".into(),
    };
    assert_eq!(
        slot.unwrap(Some(&Password::new("x")), id)
            .err()
            .unwrap()
            .code(),
        "store.key.malformed"
    );
}

#[test]
fn an_unknown_epoch_is_refused() {
    let error = keys().sealing(FRAME, 9, &[0; 32]).unwrap_err();
    assert_eq!(error.code(), "store.key.epoch-unknown");
}

//! The floors of the house as data, compared with what cargo says.
//!
//! Knows: which room may use which. Adding an edge here is a change of the design.
//! Refuses to know: dependencies from outside of the house.

use super::Fault;
use serde_json::Value;
use std::collections::BTreeSet;

/// A room of the house, its floor (0 ground, 1 formats, 2 hands, 3 movers, 4 minds, 5 doors) and
/// the rooms it may use, in tests too.
pub struct Room {
    /// Name of the crate.
    pub name: &'static str,
    /// Its floor; [`BESIDE`] for what stands beside the house.
    pub floor: u8,
    /// Rooms it may use.
    pub may_use: &'static [&'static str],
}

/// The floor number of crates that are not part of the product.
pub const BESIDE: u8 = u8::MAX;

const fn room(name: &'static str, floor: u8, may_use: &'static [&'static str]) -> Room {
    Room {
        name,
        floor,
        may_use,
    }
}

/// Every room. ARCHITECTURE.md draws the same picture.
pub const ROOMS: &[Room] = &[
    room("base", 0, &[]),
    room("disk", 1, &["base"]),
    room("store", 1, &["base"]),
    room("protocol", 2, &["base"]),
    room("platform", 2, &["base"]),
    room("mount", 2, &["base"]),
    room(
        "mover",
        3,
        &["base", "disk", "store", "protocol", "platform", "mount"],
    ),
    room("manager", 4, &["base", "protocol", "platform"]),
    room("server", 4, &["base", "protocol", "platform"]),
    room("console", 5, &["base", "protocol"]),
    room(
        "backstay",
        5,
        &["base", "mover", "manager", "server", "console"],
    ),
    room(
        "sim",
        BESIDE,
        &[
            "base", "disk", "store", "protocol", "platform", "mount", "mover", "manager", "server",
        ],
    ),
    room("xtask", BESIDE, &["base"]),
];

/// The room of this name.
pub fn room_of(name: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|room| room.name == name)
}

/// Edges that are not in the table, and crates that are not or no longer in the house.
pub fn faults(metadata: &Value) -> Vec<Fault> {
    judge(&edges(metadata))
}

/// Each member of the workspace with the members it depends on, by whatever kind of dependency.
fn edges(metadata: &Value) -> Vec<(String, BTreeSet<String>)> {
    let empty = Vec::new();
    let members = metadata["workspace_members"].as_array().unwrap_or(&empty);
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let ours: Vec<&Value> = packages
        .iter()
        .filter(|p| members.contains(&p["id"]))
        .collect();
    let names: BTreeSet<&str> = ours.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut edges: Vec<(String, BTreeSet<String>)> = ours
        .iter()
        .filter_map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap_or(&empty);
            let inside = dependencies
                .iter()
                .filter(|dependency| dependency["path"].is_string())
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|name| names.contains(name));
            Some((
                package["name"].as_str()?.to_owned(),
                inside.map(str::to_owned).collect(),
            ))
        })
        .collect();
    edges.sort();
    edges
}

fn judge(edges: &[(String, BTreeSet<String>)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, uses) in edges {
        let Some(room) = room_of(name) else {
            faults.push(Fault::new(
                name,
                0,
                "this crate has no place in tidy/floors.rs",
            ));
            continue;
        };
        for used in uses
            .iter()
            .filter(|used| !room.may_use.contains(&used.as_str()))
        {
            faults.push(Fault::new(
                name,
                0,
                format!("must not use `{used}`: the arrows of the house are in tidy/floors.rs"),
            ));
        }
    }
    for room in ROOMS
        .iter()
        .filter(|room| !edges.iter().any(|(name, _)| name == room.name))
    {
        faults.push(Fault::new(
            room.name,
            0,
            "stands in tidy/floors.rs and is not in the workspace",
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workspace as the table allows it at most.
    fn allowed() -> Vec<(String, BTreeSet<String>)> {
        let uses = |room: &Room| room.may_use.iter().map(|name| (*name).to_owned()).collect();
        ROOMS
            .iter()
            .map(|room| (room.name.to_owned(), uses(room)))
            .collect()
    }

    #[test]
    fn the_table_allows_what_it_says() {
        assert!(judge(&allowed()).is_empty());
    }

    #[test]
    fn arrows_only_point_down_and_rooms_of_the_lower_floors_are_strangers() {
        for room in ROOMS.iter().filter(|room| room.floor != BESIDE) {
            for used in room.may_use {
                let used = room_of(used).unwrap();
                let down = used.floor < room.floor || (used.floor == room.floor && room.floor > 2);
                assert!(down, "{} must not use {}", room.name, used.name);
            }
        }
    }

    #[test]
    fn an_edge_too_many_a_stranger_and_a_lost_room_are_found() {
        let mut edges = allowed();
        edges.retain(|(name, _)| name != "mount");
        edges.push(("cellar".to_owned(), BTreeSet::new()));
        if let Some((_, uses)) = edges.iter_mut().find(|(name, _)| name == "store") {
            uses.insert("disk".to_owned());
        }
        let text = judge(&edges)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(text.contains("store: must not use `disk`"), "{text}");
        assert!(text.contains("cellar: this crate has no place"), "{text}");
        assert!(text.contains("mount: stands in"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn edges_are_read_from_cargo_s_words() {
        let metadata = serde_json::json!({
            "workspace_members": ["path#a", "path#b"],
            "packages": [
                { "id": "path#a", "name": "a", "dependencies": [
                    { "name": "b", "path": "/x/b", "kind": "dev" },
                    { "name": "serde", "kind": null } ] },
                { "id": "path#b", "name": "b", "dependencies": [] },
                { "id": "registry#serde", "name": "serde", "dependencies": [] } ]
        });
        let found = edges(&metadata);
        assert_eq!(found[0], ("a".to_owned(), BTreeSet::from(["b".to_owned()])));
        assert_eq!(found[1], ("b".to_owned(), BTreeSet::new()));
        assert_eq!(found.len(), 2);
    }
}

//! The calendar's odd days.

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn shown(time: Option<Timestamp>) -> String {
    jiff::Timestamp::from_microsecond(time.unwrap().0)
        .unwrap()
        .to_string()
}

fn daily(hour: u8, minute: u8, zone: &str) -> Schedule {
    Schedule::Daily {
        hour,
        minute,
        zone: zone.into(),
    }
}

#[test]
fn daily_runs_each_day_at_the_zones_time() {
    let schedule = daily(22, 0, "Europe/Berlin");
    let cases = [
        ("2026-11-22T10:00:00Z", "2026-11-22T21:00:00Z"),
        ("2026-11-22T21:00:00Z", "2026-11-23T21:00:00Z"),
        ("2026-07-01T10:00:00Z", "2026-07-01T20:00:00Z"),
        ("2026-12-31T23:30:00Z", "2027-01-01T21:00:00Z"),
    ];
    for (after, expected) in cases {
        assert_eq!(
            shown(next_run(&schedule, at(after)).unwrap()),
            expected,
            "{after}"
        );
    }
}

#[test]
fn a_skipped_time_runs_after_the_gap_and_a_repeated_one_once() {
    // 29 March 2026: 2:00 to 3:00 does not exist in Berlin. 25 October 2026: 2:30 comes twice.
    let schedule = daily(2, 30, "Europe/Berlin");
    let gap = next_run(&schedule, at("2026-03-28T12:00:00Z")).unwrap();
    assert_eq!(shown(gap), "2026-03-29T01:30:00Z");
    let first = next_run(&schedule, at("2026-10-24T12:00:00Z")).unwrap();
    assert_eq!(shown(first), "2026-10-25T00:30:00Z");
    let second = next_run(&schedule, first.unwrap()).unwrap();
    assert_eq!(shown(second), "2026-10-26T01:30:00Z");
}

#[test]
fn periods_are_counted_from_midnight() {
    let schedule = Schedule::Periodic {
        minutes: 180,
        zone: "UTC".into(),
    };
    let cases = [
        ("2026-11-22T00:00:00Z", "2026-11-22T03:00:00Z"),
        ("2026-11-22T02:59:59Z", "2026-11-22T03:00:00Z"),
        ("2026-11-22T22:00:00Z", "2026-11-23T00:00:00Z"),
    ];
    for (after, expected) in cases {
        assert_eq!(
            shown(next_run(&schedule, at(after)).unwrap()),
            expected,
            "{after}"
        );
    }
    let odd = Schedule::Periodic {
        minutes: 7,
        zone: "UTC".into(),
    };
    let next = next_run(&odd, at("2026-11-22T23:59:00Z")).unwrap();
    assert_eq!(shown(next), "2026-11-23T00:00:00Z");
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for bad in [
        daily(24, 0, "UTC"),
        daily(0, 60, "UTC"),
        daily(1, 1, "Mars/Olympus"),
        Schedule::Periodic {
            minutes: 0,
            zone: "UTC".into(),
        },
        Schedule::Periodic {
            minutes: 1441,
            zone: "UTC".into(),
        },
    ] {
        let error = next_run(&bad, at("2026-11-22T00:00:00Z")).unwrap_err();
        assert_eq!(error.code(), "job.schedule.invalid", "{bad:?}");
    }
    assert_eq!(
        next_run(&Schedule::Manual, at("2026-11-22T00:00:00Z")).unwrap(),
        None
    );
}

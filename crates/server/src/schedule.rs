//! When a job runs next: a pure function of its schedule and of a moment.
//!
//! Knows: calendars and time zones. Refuses to know: the clock, jobs at work, the database.
//!
//! # Rules
//! - Daily: at the named time of the zone. A time that the clocks skip runs at the first moment
//!   after the gap; a time that comes twice runs once, the first time.
//! - Periodic: counted from midnight of the zone, so "every 180 minutes" is 0:00, 3:00, 6:00...;
//!   the count starts anew each midnight.

use base::clock::Timestamp;
use base::{Error, Result};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};
use protocol::words::job::Schedule;

/// The first moment after `after` at which the schedule runs; none for manual jobs.
///
/// # Errors
/// `Invalid` where the schedule names a time or zone that does not exist.
pub fn next_run(schedule: &Schedule, after: Timestamp) -> Result<Option<Timestamp>> {
    match schedule {
        Schedule::Manual => Ok(None),
        Schedule::Daily { hour, minute, zone } => {
            if *hour > 23 || *minute > 59 {
                return Err(invalid(format!("{hour}:{minute:02} is not a time of day")));
            }
            let start = local(after, zone)?;
            let (hour, minute) = (as_i8(*hour), as_i8(*minute));
            first_after(after, &start, |date, zone| {
                vec![date.at(hour, minute, 0, 0)]
                    .into_iter()
                    .filter_map(|time| time.to_zoned(zone.clone()).ok())
                    .collect()
            })
        }
        Schedule::Periodic { minutes, zone } => {
            if *minutes == 0 || *minutes > 1440 {
                return Err(invalid(format!(
                    "a period of {minutes} minutes is not 1 to 1440"
                )));
            }
            let start = local(after, zone)?;
            first_after(after, &start, |date, zone| slots(date, zone, *minutes))
        }
    }
}

/// All slots of a day: every `minutes` of wall-clock time from its midnight.
fn slots(date: Date, zone: &TimeZone, minutes: u16) -> Vec<Zoned> {
    let minutes = u32::from(minutes);
    (0..1440 / minutes.max(1) + 1)
        .map(|slot| slot * minutes)
        .take_while(|minute| *minute < 1440)
        .filter_map(|minute| {
            let (hour, minute) = (
                i8::try_from(minute / 60).ok()?,
                i8::try_from(minute % 60).ok()?,
            );
            date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()
        })
        .collect()
}

fn first_after(
    after: Timestamp,
    start: &Zoned,
    of_day: impl Fn(Date, &TimeZone) -> Vec<Zoned>,
) -> Result<Option<Timestamp>> {
    let mut date = start.date();
    // Two days always hold a slot; the third covers zones that skipped a whole day.
    for _ in 0..3 {
        let next = of_day(date, start.time_zone())
            .iter()
            .map(|zoned| Timestamp(zoned.timestamp().as_microsecond()))
            .filter(|time| *time > after)
            .min();
        if next.is_some() {
            return Ok(next);
        }
        date = date
            .checked_add(1.day())
            .map_err(|error| invalid("the calendar ends").caused_by(error))?;
    }
    Ok(None)
}

fn local(time: Timestamp, zone: &str) -> Result<Zoned> {
    let zone = TimeZone::get(zone).map_err(|error| {
        invalid(format!("\u{201c}{zone}\u{201d} is not a time zone"))
            .hint("use a name like Europe/Berlin or UTC")
            .caused_by(error)
    })?;
    let time = jiff::Timestamp::from_microsecond(time.0)
        .map_err(|error| invalid("the time is outside the calendar").caused_by(error))?;
    Ok(time.to_zoned(zone))
}

fn as_i8(value: u8) -> i8 {
    i8::try_from(value).unwrap_or(i8::MAX)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("job.schedule.invalid", message)
        .hint("for example --daily 22:30 --zone Europe/Berlin, or --every 60")
}

#[cfg(test)]
mod tests;

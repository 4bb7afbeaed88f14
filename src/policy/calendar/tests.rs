use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    let at: jiff::Timestamp = text.parse().expect("a point in time");
    Timestamp::from_milliseconds(at.as_millisecond())
}

fn calendar(zone: &str, windows: &[&str]) -> Calendar {
    let zone = TimeZoneDatabase::bundled().get(zone).expect("a time zone");
    let windows = windows.iter().map(|text| text.parse().expect("a window"));
    Calendar::new(zone, windows.collect())
}

/// Asserts at which of these points in time a calendar is open.
fn assert_open(calendar: &Calendar, expected: &[(&str, bool)]) {
    for (text, open) in expected {
        assert_eq!(calendar.is_open(at(text)), *open, "{text}");
    }
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let calendar = calendar("UTC", &["Fri 22:00-02:00"]);
    // 20 November 2026 is a Friday.
    assert_open(
        &calendar,
        &[
            ("2026-11-20T21:59:59Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T01:59:59Z", true),
            ("2026-11-21T02:00:00Z", false),
            ("2026-11-21T22:00:00Z", false),
        ],
    );
    assert_eq!(
        calendar.next_opening(at("2026-11-21T12:34:56Z")),
        Some(at("2026-11-27T22:00:00Z"))
    );
}

#[test]
fn monday_morning_friday_afternoon_and_the_weekend_stay_closed() {
    let calendar = calendar(
        "Europe/Berlin",
        &["Mon 12:00-17:00", "Tue-Thu 09:00-17:00", "Fri 09:00-12:00"],
    );
    assert_open(
        &calendar,
        &[
            ("2026-11-20T07:59:59Z", false),
            ("2026-11-20T08:00:00Z", true),
            ("2026-11-20T11:00:00Z", false),
            ("2026-11-21T10:00:00Z", false),
            ("2026-11-23T10:59:59Z", false),
            ("2026-11-23T11:00:00Z", true),
            ("2026-11-24T08:00:00Z", true),
        ],
    );
    assert_eq!(
        calendar.next_opening(at("2026-11-20T11:00:00Z")),
        Some(at("2026-11-23T11:00:00Z"))
    );
}

/// In Berlin the clock jumps from 2:00 to 3:00 on 29 March 2026, at 1:00 UTC, and shows the hour
/// from 2:00 to 3:00 twice on 25 October. Whoever reckons a window as "so many hours after UTC
/// midnight" is an hour off on such days.
#[test]
fn a_window_in_the_hour_that_is_skipped_does_not_open_that_day() {
    let calendar = calendar("Europe/Berlin", &["Sun 02:15-02:45"]);
    assert_open(
        &calendar,
        &[
            ("2026-03-22T01:15:00Z", true),
            ("2026-03-29T00:59:59Z", false),
            ("2026-03-29T01:15:00Z", false),
            ("2026-03-29T00:15:00Z", false),
            ("2026-04-05T00:15:00Z", true),
        ],
    );
    assert_eq!(
        calendar.next_opening(at("2026-03-22T02:00:00Z")),
        Some(at("2026-04-05T00:15:00Z"))
    );
}

#[test]
fn a_window_in_the_hour_that_comes_twice_opens_twice() {
    let calendar = calendar("Europe/Berlin", &["Sun 02:15-02:45"]);
    assert_open(
        &calendar,
        &[
            ("2026-10-25T00:15:00Z", true),
            ("2026-10-25T00:45:00Z", false),
            ("2026-10-25T01:15:00Z", true),
            ("2026-10-25T01:45:00Z", false),
        ],
    );
    assert_eq!(
        calendar.next_opening(at("2026-10-25T00:45:00Z")),
        Some(at("2026-10-25T01:15:00Z"))
    );
}

#[test]
fn office_hours_begin_by_the_clock_on_the_wall_on_both_sides_of_a_change() {
    for (zone, before, after) in [
        // Closed on Sunday evening, then open on Monday at 9:00 local time.
        (
            "Europe/Berlin",
            "2026-03-29T20:00:00Z",
            "2026-03-30T07:00:00Z",
        ),
        (
            "Europe/Berlin",
            "2026-10-25T20:00:00Z",
            "2026-10-26T08:00:00Z",
        ),
        (
            "America/New_York",
            "2026-03-08T20:00:00Z",
            "2026-03-09T13:00:00Z",
        ),
        (
            "America/New_York",
            "2026-11-01T20:00:00Z",
            "2026-11-02T14:00:00Z",
        ),
    ] {
        let calendar = calendar(zone, &["Mon-Fri 09:00-17:00"]);
        assert_eq!(calendar.next_opening(at(before)), Some(at(after)), "{zone}");
        assert!(calendar.is_open(at(after)));
    }
    let night = calendar("America/New_York", &["Sat 23:00-04:00"]);
    // The night to 8 March 2026 has four hours, the one to 1 November six.
    assert_open(
        &night,
        &[
            ("2026-03-08T04:00:00Z", true),
            ("2026-03-08T07:59:00Z", true),
            ("2026-03-08T08:00:00Z", false),
            ("2026-11-01T03:00:00Z", true),
            ("2026-11-01T08:59:00Z", true),
            ("2026-11-01T09:00:00Z", false),
        ],
    );
}

prop_compose! {
    /// On some days, from one quarter of an hour to another.
    fn any_window()(days in 1..128_u8, from in 0..96_i8, length in 1..96_i8) -> WeeklyWindow {
        let week = Weekday::Monday.cycle_forward().take(7).enumerate();
        let days = week.filter(|(index, _)| days & (1 << index) != 0);
        let quarter = |index: i8| jiff::civil::time(index / 4, index % 4 * 15, 0, 0);
        // The sum of two quarters is more than an `i8` holds.
        let to = (from - 96 + length).rem_euclid(96);
        WeeklyWindow {
            days: days.map(|(_, day)| day).collect(),
            from: quarter(from),
            to: (to != 0).then(|| quarter(to)),
        }
    }
}

/// A zone, and a time about a week before the clocks there are set: by an hour, at midnight, by
/// half an hour, twice within weeks, by leaving out a day, or not at all.
fn any_place() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("Europe/Berlin", "2026-03-22T01:00:00Z"),
        ("Europe/Berlin", "2026-10-18T01:00:00Z"),
        ("America/Havana", "2026-03-01T05:00:00Z"),
        ("America/Havana", "2026-10-25T05:00:00Z"),
        ("Australia/Lord_Howe", "2026-03-28T15:00:00Z"),
        ("Australia/Lord_Howe", "2026-09-26T15:30:00Z"),
        ("Africa/Casablanca", "2026-02-08T02:00:00Z"),
        ("Pacific/Apia", "2011-12-23T10:00:00Z"),
        ("UTC", "2026-11-20T00:00:00Z"),
    ])
}

proptest! {
    /// A minute is either open or not, so whoever looks at each of them is slow but right. The
    /// jump must find the same minute.
    #[test]
    fn the_jump_to_the_next_opening_finds_what_a_walk_by_minutes_finds(
        (zone, from) in any_place(),
        windows in prop::collection::vec(any_window(), 1..3),
        milliseconds in 0..10 * 86_400_000_u64,
    ) {
        let zone = TimeZoneDatabase::bundled().get(zone).expect("a time zone");
        let calendar = Calendar::new(zone, windows);
        let now = at(from).plus(Duration::from_millis(milliseconds));
        prop_assert_eq!(calendar.next_opening(now), walk(&calendar, now));
    }
}

fn walk(calendar: &Calendar, now: Timestamp) -> Option<Timestamp> {
    const MINUTE: Duration = Duration::from_secs(60);
    if calendar.is_open(now) {
        return None;
    }
    let whole_minute = now.milliseconds() - now.milliseconds().rem_euclid(60_000);
    let first = Timestamp::from_milliseconds(whole_minute);
    (1..=15 * 24 * 60)
        .map(|step| first.plus(MINUTE * step))
        .find(|minute| calendar.is_open(*minute))
}

#[test]
fn windows_are_read_as_people_write_them() {
    for (text, printed) in [
        ("Mon-Fri 09:00-17:00", "Mon-Fri 09:00-17:00"),
        ("monday-FRIDAY 9:00-17:00", "Mon-Fri 09:00-17:00"),
        ("Sat", "Sat"),
        ("Sat 00:00-24:00", "Sat"),
        ("Wed,Mon  22:00-02:00", "Mon,Wed 22:00-02:00"),
        ("Fri-Mon 20:00-00:00", "Mon,Fri-Sun 20:00-24:00"),
        ("Mon-Sun", "Mon-Sun"),
        (" Tue,Tue 00:00-00:01 ", "Tue 00:00-00:01"),
    ] {
        let window: WeeklyWindow = text.parse().expect(text);
        assert_eq!(window.to_string(), printed);
    }
    for text in [
        "",
        "09:00-17:00",
        "Mon 9-17",
        "Mo 09:00-17:00",
        "Mon- 09:00-17:00",
        "Mon 09:00",
        "Mon 24:00-25:00",
        "Mon 24:00-01:00",
        "Mon 09:60-10:00",
        "Mon 09:00-24:01",
        "Mon 09:00-17:00:30",
        "Mon, Wed 09:00-17:00",
        "Mon +9:00-17:00",
    ] {
        assert_eq!(
            text.parse::<WeeklyWindow>(),
            Err(InvalidWindow::Unreadable),
            "{text}"
        );
    }
    for text in ["Mon 09:00-09:00", "Mon-Fri 00:00-00:00"] {
        assert_eq!(
            text.parse::<WeeklyWindow>(),
            Err(InvalidWindow::NeverOpens),
            "{text}"
        );
    }
}

#[test]
fn every_set_of_days_is_read_as_it_is_printed() {
    let week = Weekday::Monday.cycle_forward().take(7);
    let week: Vec<Weekday> = week.collect();
    for set in 1..128_u8 {
        let days = week.iter().enumerate();
        let days = days.filter(|(index, _)| set & (1 << index) != 0);
        let window = WeeklyWindow {
            days: days.map(|(_, day)| *day).collect(),
            from: jiff::civil::time(9, 30, 0, 0),
            to: None,
        };
        assert_eq!(window.to_string().parse(), Ok(window));
    }
}

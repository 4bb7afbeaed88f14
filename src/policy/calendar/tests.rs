use jiff::tz::TimeZoneDatabase;

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

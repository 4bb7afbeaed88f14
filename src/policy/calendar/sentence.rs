//! Windows as people write them: `Mon-Fri 09:00-17:00`.
//!
//! What is printed here is read back as the same thing. A window that ends when it begins would be
//! a whole day to one reader and nothing to another, so it is refused.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use jiff::civil::{Time, Weekday};

use super::WeeklyWindow;

/// The text is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// It is written otherwise.
    #[error(
        "a window is days with times of day, such as `Mon-Fri 09:00-17:00`, `Mon,Wed 22:00-02:00` \
         (until the next morning) or `Sat` (the whole day)"
    )]
    Unreadable,
    /// It ends in the minute in which it begins.
    #[error("a window that ends when it begins never opens; for a whole day write the day alone")]
    NeverOpens,
}

const MINUTES_OF_DAY: u16 = 24 * 60;

/// Reads days, and after them the times between which the window is open; without times all day.
impl FromStr for WeeklyWindow {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let text = text.trim();
        let (days, times) = match text.split_once(char::is_whitespace) {
            Some((days, times)) => (days, Some(times.trim_start())),
            None => (text, None),
        };
        let days = days_of_week(days).ok_or(InvalidWindow::Unreadable)?;
        let Some(times) = times else {
            let (from, to) = (Time::midnight(), None);
            return Ok(Self { days, from, to });
        };
        let minutes = times.split_once('-').and_then(|(from, to)| {
            let (from, to) = (minute_of_day(from)?, minute_of_day(to)?);
            (from < MINUTES_OF_DAY).then_some((from, to))
        });
        let (from, to) = minutes.ok_or(InvalidWindow::Unreadable)?;
        if from == to {
            return Err(InvalidWindow::NeverOpens);
        }
        Ok(Self {
            days,
            from: time_of_day(from),
            // Midnight is the end of the day, not the beginning of the next window's night.
            to: Some(to % MINUTES_OF_DAY)
                .filter(|to| *to > 0)
                .map(time_of_day),
        })
    }
}

/// Writes the sentence that [`FromStr`] reads.
impl Display for WeeklyWindow {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for run in self.days.chunk_by(|day, next| day.next() == *next) {
            match run {
                [first, _, .., last] => {
                    write!(f, "{separator}{}-{}", short(*first), short(*last))?;
                    separator = ",";
                }
                _ => {
                    for day in run {
                        write!(f, "{separator}{}", short(*day))?;
                        separator = ",";
                    }
                }
            }
        }
        let clock = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        match self.to {
            None if self.is_whole_day() => Ok(()),
            None => write!(f, " {}-24:00", clock(self.from)),
            Some(to) => write!(f, " {}-{}", clock(self.from), clock(to)),
        }
    }
}

const DAYS: [(Weekday, &str); 7] = [
    (Weekday::Monday, "Monday"),
    (Weekday::Tuesday, "Tuesday"),
    (Weekday::Wednesday, "Wednesday"),
    (Weekday::Thursday, "Thursday"),
    (Weekday::Friday, "Friday"),
    (Weekday::Saturday, "Saturday"),
    (Weekday::Sunday, "Sunday"),
];

fn short(day: Weekday) -> &'static str {
    let name = DAYS[usize::from(day.to_monday_zero_offset().unsigned_abs())].1;
    &name[..3]
}

/// Days and ranges of days between commas; each day once, Monday first.
fn days_of_week(text: &str) -> Option<Vec<Weekday>> {
    let mut named = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (day_of_week(first)?, day_of_week(last)?);
        named[day] = true;
        // `Fri-Mon` goes over the end of the week.
        while day != last {
            day = (day + 1) % DAYS.len();
            named[day] = true;
        }
    }
    let days = DAYS.into_iter().zip(named);
    Some(
        days.filter_map(|((day, _), named)| named.then_some(day))
            .collect(),
    )
}

/// The index of a day from Monday, by its name or the first three letters of it.
fn day_of_week(text: &str) -> Option<usize> {
    DAYS.iter().position(|(_, name)| {
        name.eq_ignore_ascii_case(text) || name[..3].eq_ignore_ascii_case(text)
    })
}

/// Minutes since midnight of `09:30`; `24:00` is the midnight that ends the day.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let is_number = |part: &str, lengths: &[usize]| {
        lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    if !is_number(hour, &[1, 2]) || !is_number(minute, &[2]) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= MINUTES_OF_DAY).then_some(minutes)
}

fn time_of_day(minute: u16) -> Time {
    let part = |number: u16| i8::try_from(number).unwrap_or_default();
    // The caller's minutes are below those of a day, so both parts are in range.
    Time::new(part(minute / 60), part(minute % 60), 0, 0).unwrap_or_default()
}

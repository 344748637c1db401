//! Event times: RFC 3339 on the wire, microseconds in the code.

use chrono::DateTime;

use crate::clock::Micros;

/// 0001-01-01T00:00:00Z: the first moment that a message may name; PostgreSQL and RFC 3339 both hold it.
pub const TIME_MIN: Micros = Micros(-62_135_596_800_000_000);
/// 9999-12-31T23:59:59.999999Z: the last moment that a message may name.
pub const TIME_MAX: Micros = Micros(253_402_300_799_999_999);

const DAY_US: i64 = 86_400_000_000;

/// Appends `YYYY-MM-DDTHH:MM:SS.ffffffZ`. A time outside of the years 0001 to 9999 gets a longer year, which decoding
/// refuses.
pub(super) fn push_rfc3339(out: &mut Vec<u8>, time: Micros) {
    let (year, month, day) = civil_from_days(time.0.div_euclid(DAY_US));
    let within_day = time.0.rem_euclid(DAY_US);
    let seconds = within_day / 1_000_000;
    if (0..=9999).contains(&year) {
        push_digits(out, year as u64, 4);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(year).as_bytes());
    }
    for (separator, value) in
        [(b'-', month), (b'-', day), (b'T', seconds / 3600), (b':', seconds / 60 % 60), (b':', seconds % 60)]
    {
        out.push(separator);
        push_digits(out, value as u64, 2);
    }
    out.push(b'.');
    push_digits(out, (within_day % 1_000_000) as u64, 6);
    out.push(b'Z');
}

/// Reads any RFC 3339 time; digits beyond microseconds are cut off. None: not one, or outside of the years 0001..9999.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Micros> {
    let time = match parse_own_form(text.as_bytes()) {
        Some(time) => time,
        None => Micros(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros()),
    };
    (TIME_MIN..=TIME_MAX).contains(&time).then_some(time)
}

/// The form that we write ourselves, several times faster than the general parser.
fn parse_own_form(text: &[u8]) -> Option<Micros> {
    if text.len() != 27 || text[4] != b'-' || text[7] != b'-' || text[10] != b'T' {
        return None;
    }
    if text[13] != b':' || text[16] != b':' || text[19] != b'.' || text[26] != b'Z' {
        return None;
    }
    let (year, month, day) = (digits(&text[0..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    let micros = digits(&text[20..26])?;
    // February 29 and leap seconds are left to the general parser, which knows the calendar.
    let days = match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second;
    Some(Micros(days_from_civil(year, month, day) * DAY_US + seconds * 1_000_000 + micros))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn push_digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar; years start in March, so that the leap day is
/// the last of its year, and 400 years have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text_of(time: Micros) -> String {
        let mut out = Vec::new();
        push_rfc3339(&mut out, time);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn our_calendar_agrees_with_chrono_on_every_day_of_eight_hundred_years() {
        let first = days_from_civil(1600, 1, 1);
        for day in first..first + 292_194 {
            let time = Micros(day * DAY_US + 86_399_999_999);
            assert_eq!(text_of(time), time.to_string());
            assert_eq!(parse_rfc3339(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn the_first_and_last_moment_are_in_and_their_neighbours_out() {
        for time in [TIME_MIN, TIME_MAX] {
            assert_eq!(parse_rfc3339(&text_of(time)), Some(time));
        }
        assert_eq!(text_of(TIME_MIN), "0001-01-01T00:00:00.000000Z");
        assert_eq!(text_of(TIME_MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(parse_rfc3339(&text_of(Micros(TIME_MIN.0 - 1))), None);
        assert_eq!(parse_rfc3339(&text_of(Micros(TIME_MAX.0 + 1))), None);
    }

    #[test]
    fn offsets_and_other_precisions_are_understood() {
        let expected = Some(Micros(1_577_836_800_500_000));
        for text in ["2020-01-01T00:00:00.5Z", "2019-12-31T19:00:00.500-05:00", "2020-01-01T00:00:00.500000999Z"] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
        for text in ["", "2020-01-01", "2020-02-30T00:00:00.000000Z", "2020-01-01T24:00:00.000000Z", "yesterday"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}

//! The time in `x-amz-date`.

/// Seconds since 1970 of `YYYYMMDDTHHMMSSZ`; `None` if it is no such time.
pub(super) fn parse(text: &str) -> Option<i64> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    if text.len() != 16 || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(4, 6)?, digits(6, 8)?);
    let (hour, minute, second) = (digits(9, 11)?, digits(11, 13)?, digits(13, 15)?);
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let is_day = (1..=12).contains(&month) && (1..=31).contains(&day);
    (is_day && is_time).then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March, so that the leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // As `date -u -d … +%s` prints them.
        for (text, expected) in [
            ("19700101T000000Z", Some(0)),
            ("20000229T235959Z", Some(951_868_799)),
            ("20150830T123600Z", Some(1_440_938_160)),
            ("20261129T215500Z", Some(1_795_989_300)),
            ("20260101T000000Z", Some(1_767_225_600)),
            ("20261129T215500", None),
            ("20261129 215500Z", None),
            ("2026112+T215500Z", None),
            ("20261329T215500Z", None),
            ("20261129T245500Z", None),
            ("2026é129T15500Z", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}

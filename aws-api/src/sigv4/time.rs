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

/// As `YYYYMMDDTHHMMSSZ`.
pub(super) fn written(unix_secs: i64) -> String {
    let (day, second) = (unix_secs.div_euclid(86_400), unix_secs.rem_euclid(86_400));
    // Years begin in March here too.
    let (era, of_era) = ((day + 719_468).div_euclid(146_097), (day + 719_468).rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + later;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{date:02}T{hour:02}{minute:02}{second:02}Z")
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
            if let Some(unix_secs) = expected {
                assert_eq!(written(unix_secs), text);
            }
        }
        for unix_secs in (0..4_000_000_000).step_by(86_400 * 3 + 12_345) {
            assert_eq!(parse(&written(unix_secs)), Some(unix_secs));
        }
    }
}

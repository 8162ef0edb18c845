"""A time as text, without a clock or a time zone's rules: by the Gregorian calendar's own."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000


def utc(ms: int) -> str:
    """A Unix time in milliseconds as `2026-07-01 12:00:00.000 UTC`, by the Gregorian calendar's own rules."""
    days, rest = divmod(ms, _DAY)
    # Days since 0000-03-01, in eras of 400 years: leap days come last in such a year.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    hour, rest = divmod(rest, _HOUR)
    minute, rest = divmod(rest, _MINUTE)
    return f"{year:04d}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{rest // 1000:02d}.{rest % 1000:03d} UTC"

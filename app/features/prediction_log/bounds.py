"""What values of the log's routes may be: bounds of texts, and how times are written."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

MAX_LABEL_CHARS = 256
MAX_ID_CHARS = 128
MAX_VERSION_CHARS = 256
# PostgreSQL can't store U+0000, and its driver refuses it even in a filter.
NO_NUL = r"^[^\x00]*$"
LOST_PLUS = re.compile(r"(?<=[0-9]) (?=[0-9]{2}:[0-9]{2}$)")
IS_DATE = re.compile(r"[0-9]{4}-")


def _iso(value: str) -> str:
    """Accept ISO 8601 only, not seconds since 1970; restore a "+" that a URL made a blank."""
    if not IS_DATE.match(value):
        raise ValueError("give a time as ISO 8601 has it, such as 2026-11-22T12:00:00Z")
    # With one colon it is a time without a zone, and its blank is the one after the date.
    return LOST_PLUS.sub("+", value) if value.count(":") > 1 else value


def _utc(moment: datetime) -> datetime:
    """Return the moment in UTC; the first and last hours of the calendar may have none."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of the calendar") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_iso), AfterValidator(_utc)]

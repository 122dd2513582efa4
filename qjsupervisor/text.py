"""Values as text for people: on a terminal, on the page, in messages.  Pure."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """'0.3 s', '42 s', '3 min', '2 h 05 min', '4 d 02 h': for people, rounded down."""
    if not math.isfinite(value):
        return "ever"
    if value < 10:
        return f"{max(value, 0.0):.1f} s"
    if value < 120:
        return f"{int(value)} s"
    minutes = int(value) // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"

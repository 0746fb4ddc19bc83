"""What is said of an error that no connector should raise: its kind and its line, never the value that caused it."""

from __future__ import annotations

import traceback


def place_of(error: Exception) -> str:
    """As in `KeyError in normalise (source.py:12)`."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"

"""Wise (wise.live): classes, live sessions, attendance, enrolments, fees and certificates."""

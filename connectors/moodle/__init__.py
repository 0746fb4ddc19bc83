"""Moodle: people, enrolments and grades over its web services (REST)."""

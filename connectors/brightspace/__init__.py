"""Brightspace (D2L): enrolments and grades over its Valence API."""

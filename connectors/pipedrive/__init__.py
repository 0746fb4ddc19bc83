"""Pipedrive: persons, deals and notes over its API."""

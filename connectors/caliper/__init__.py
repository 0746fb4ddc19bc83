"""Caliper Analytics: any endpoint."""

"""Pabbly Connect."""

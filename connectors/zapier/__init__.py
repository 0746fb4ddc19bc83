"""Zapier: Webhooks by Zapier."""

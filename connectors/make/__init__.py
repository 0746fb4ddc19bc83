"""Make: custom webhooks."""

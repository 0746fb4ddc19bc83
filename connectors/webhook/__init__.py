"""A signed webhook as Standard Webhooks describes it."""

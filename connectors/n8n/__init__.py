"""n8n: the Webhook node."""

"""The Flask application: webhooks in, health and figures out, and one plain page to look at."""

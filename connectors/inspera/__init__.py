"""Inspera Assessment: signed thin webhooks in, completed over the tenant's REST API."""

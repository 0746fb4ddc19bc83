"""Salesforce: records over the REST API."""

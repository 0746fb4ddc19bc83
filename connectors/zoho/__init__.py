"""Zoho CRM: records of any module, and notes, over its API."""

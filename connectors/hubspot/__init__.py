"""HubSpot: contacts, custom objects, notes, associations and timeline events over the CRM API."""

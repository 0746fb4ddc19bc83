"""The one room for outgoing HTTP: every request passes the guard, token fetches and enrichment included."""

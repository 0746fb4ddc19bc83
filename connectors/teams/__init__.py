"""Microsoft Teams: Workflows that post Adaptive Cards."""

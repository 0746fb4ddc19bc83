"""Any HTTP API: the mapping says what goes where."""

"""Power Automate: When an HTTP request is received."""

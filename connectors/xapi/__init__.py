"""xAPI: any Learning Record Store."""

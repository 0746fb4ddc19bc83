"""Values, vocabulary and pure functions. The only room that a connector may import; nothing here does I/O."""

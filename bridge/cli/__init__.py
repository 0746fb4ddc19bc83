"""The command line: one module per group of verbs. Everything that it does, it does through the rooms below."""

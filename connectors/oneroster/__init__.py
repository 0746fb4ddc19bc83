"""OneRoster 1.2: the gradebook of a student information system."""

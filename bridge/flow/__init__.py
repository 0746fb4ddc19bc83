"""The line: receive → process → deliver. Pure: what needs a disk, a database or a network is handed in."""

"""L5, the command line: `resolute dev`, `start`, `ls`, `show`, `flows`, `graph`, `doctor` and more."""

"""L5, the command line: `resolute dev`, `start`, `ls`, `show`, `doctor` and more."""

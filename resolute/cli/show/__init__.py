"""`resolute show`: one run, its nodes on a time axis, and what it waits for."""

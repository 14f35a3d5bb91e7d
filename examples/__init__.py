"""Programs written with Resolute, to read and to run."""

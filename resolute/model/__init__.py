"""L1, the model: what a user writes and what it compiles to. No I/O in here."""

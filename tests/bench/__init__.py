"""`scripts/bench`: how fast it is, against the floor that scripts alone set in the same run."""

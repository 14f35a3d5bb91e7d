"""End to end: real servers, real coordinators and workers, killed for real."""

"""Read by every Python process that has this folder in PYTHONPATH: arms a crash point in it."""

import os

if "RESOLUTE_POINTS" in os.environ:
    from tests.faults.points import install

    install()

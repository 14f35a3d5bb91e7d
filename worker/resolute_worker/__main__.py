"""The program of a worker process; its supervisor starts it as `python -m resolute_worker`."""

from resolute_worker.process import main

main()

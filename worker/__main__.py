"""``python -m worker``: see ``worker.start``.

Children import this module as their main one, so nothing is done or imported here.
"""

if __name__ == "__main__":
    import sys

    from services import heap

    heap.collect_rarely()

    from worker.start import main

    sys.exit(main())

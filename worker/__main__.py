"""``python -m worker``: see ``worker.start``.

Children import this module as their main one, so nothing is done or imported here.
"""

if __name__ == "__main__":
    import gc
    import sys

    # As in ``api.__main__``.
    gc.set_threshold(50_000, 20, 20)

    from worker.start import main

    sys.exit(main())

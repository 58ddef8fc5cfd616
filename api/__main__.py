"""``python -m api``: see ``api.server``."""

if __name__ == "__main__":
    import gc

    # Nothing that modules make while they are imported is garbage: looking for some
    # takes 0.3 s of a start. Later, too, requests leave little.
    gc.set_threshold(50_000, 20, 20)

    from api.server import main

    main()

"""``python -m api``: see ``api.server``."""

if __name__ == "__main__":
    from services import heap

    heap.collect_rarely()

    from api.server import main

    main()

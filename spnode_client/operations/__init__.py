"""What can be asked of a service, as generators of calls (``calls.py``)."""

"""The stable linear operators ``A``."""

"""The exponential integrators and the phi functions under them."""

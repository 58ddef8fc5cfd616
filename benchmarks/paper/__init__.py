"""The examples of arXiv 2503.01775, with the paper's settings and beside our own.

An example is a list of rows. A row is one measurement: settings, and the numbers that
came out. Rows are measured one after the other and stored as each is done, so that a
run may be stopped at any time and goes on from there.
"""

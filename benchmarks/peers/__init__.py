"""Other software that we are measured against, each in an environment of its own.

``environment`` installs it, ``process`` runs it; every other file is a program that the
interpreter of such an environment runs, so what they import is not installed here.
"""

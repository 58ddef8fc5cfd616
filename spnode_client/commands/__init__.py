"""The command line of the client, one file a noun."""

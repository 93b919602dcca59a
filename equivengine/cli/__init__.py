"""The command line: one file for each command, which parses, calls the runtime and prints."""

"""The command line: programs that read flags and call the library."""

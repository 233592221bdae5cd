"""The command line: flags and words of a program to one call of the library."""

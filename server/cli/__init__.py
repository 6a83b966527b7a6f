"""The command line: argv -> exit code."""

"""Kill a process at each step by which it changes files, to see what a crash leaves; see README.md."""

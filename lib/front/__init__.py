"""What the doors do: they read a command line, call the rooms, and print."""

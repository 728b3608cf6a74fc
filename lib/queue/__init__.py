"""The queue of specs: what waits, how it gets there, how it runs, and what follows from a failure."""

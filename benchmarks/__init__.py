"""Measurements of the paths that are used all day; `make bench` runs them, and no test asserts them."""

"""The rooms of chaos_tester.py: it breaks rehearsal teams on purpose, and looks whether all comes back."""

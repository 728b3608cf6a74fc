"""What load_tester.py does: many rehearsal orchestrations on a machine of their own, measured step by step."""

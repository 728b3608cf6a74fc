"""The web dashboard: what monitoring_dashboard.py serves."""

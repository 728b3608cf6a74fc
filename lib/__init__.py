"""The rooms of the Tmux Orchestrator; ARCHITECTURE.md has the map."""

"""The real Claude Code CLI against a scripted model server on loopback."""

"""The rehearsal agent: a stand-in for Claude Code that needs no account and no network."""

VERSION = "0.1.0"
BANNER = "Rehearsal agent - not a real Claude Code"

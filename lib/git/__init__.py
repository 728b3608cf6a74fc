"""Git: its repositories, worktrees, merges and hooks, and nothing of teams or the store."""

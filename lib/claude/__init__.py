"""Claude Code: how it is started, what its hooks and files say, and whether it can be used at all.

The only rooms, with screens.py and headless.py, that know Claude Code's flags, settings, hook payloads and transcript.
Facts are measured with Claude Code 2.1.330 in tmux 3.3a. The rehearsal agent has the same outside shape,
so that everything here serves both; only its command and its configuration folder differ.
"""

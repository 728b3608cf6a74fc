#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/claude_control.py" send --hub "$@"

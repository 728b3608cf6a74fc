#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/scheduler.py" --add-note "$@"

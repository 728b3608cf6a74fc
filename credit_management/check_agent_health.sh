#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/credit_monitor.py" --health "$@"

#!/bin/sh
# Installs the scheduler as a service: for a USER by root, or with --user for whoever calls it.
exec "$(dirname "$(readlink -f "$0")")/service.sh" install "$@"

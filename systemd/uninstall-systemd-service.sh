#!/bin/sh
# Removes what install-systemd-service.sh has installed; the agents go on, and the state stays.
exec "$(dirname "$(readlink -f "$0")")/service.sh" uninstall "$@"

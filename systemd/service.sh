#!/usr/bin/env bash
# Installs the scheduler as a service of systemd, and removes it. Everything is looked at before anything is changed,
# and what is in place already is left alone: running it again mends, or changes nothing.
set -euo pipefail
unset CDPATH

readonly NAME=tmux-orchestrator-scheduler
readonly MARK='# tmux-orchestrator: written by install-systemd-service.sh, removed by uninstall-systemd-service.sh'
# What the service takes over from the person's login: what finds programs, and what says where things are.
readonly KEPT='PATH LANG LC_ALL TMUX_TMPDIR XDG_CONFIG_HOME XDG_STATE_HOME XDG_DATA_HOME XDG_CACHE_HOME UV_CACHE_DIR
CLAUDE_CONFIG_DIR TMUX_ORCHESTRATOR_HOME TMUX_ORCHESTRATOR_CONFIG TMUX_ORCHESTRATOR_SOCKET'
readonly LOGIN_SECONDS=10

# The exit codes of the README.
readonly FAILED=1 USAGE=2 NOT_FOUND=3 BUSY=4 NOT_NOW=5

usage() {
  cat <<USAGE
Usage: ${verb}-systemd-service.sh USER | --user  [--dry-run] [--unit-dir DIR] [--root DIR]

USAGE
  if [ "$verb" = install ]; then
    cat <<'USAGE'
Have systemd keep the scheduler of USER running, from boot on. Needs root, and a ./setup.sh that
USER has run. With --user a service of your own, without root. Running it again changes nothing.

USAGE
  else
    cat <<'USAGE'
Stop the service and remove what install-systemd-service.sh has written. The agents go on, and the
state, the settings and the worktrees stay. Running it again changes nothing.

USAGE
  fi
  cat <<USAGE
Options:
  --user          For yourself, by your own service manager.
  --dry-run       Print what would be done, and change nothing.
  --unit-dir DIR  Another folder for the unit, of those that systemd reads.
  --root DIR      In the system below DIR, which does not run: write and enable only.
  -h, --help      Show this text.

Examples:
  sudo ./systemd/${verb}-systemd-service.sh \$USER
  ./systemd/${verb}-systemd-service.sh --user
  sudo ./systemd/${verb}-systemd-service.sh \$USER --dry-run
USAGE
}

main() {
  verb=$1
  shift
  checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
  read_options "$@"
  cd /
  choose_unit
  look_up_account
  case $verb in
    install) install ;;
    uninstall) uninstall ;;
  esac
}

read_options() {
  person=
  own=no
  dry_run=no
  root=
  folder=
  changed=no
  while [ $# -gt 0 ]; do
    case $1 in
      --user) own=yes ;;
      --dry-run) dry_run=yes ;;
      --root) root=$(folder_named "$@") || exit; shift ;;
      --unit-dir) folder=$(folder_named "$@") || exit; shift ;;
      -h | --help) usage && exit 0 ;;
      -*) wrong "unknown option $1" ;;
      *) if [ -z "$person" ]; then person=$1; else wrong "one USER at a time"; fi ;;
    esac
    shift
  done
  if [ $own = yes ] && [ -n "$person$root" ]; then wrong "--user is for yourself: it takes no USER and no --root"; fi
  if [ $own = no ] && [ -z "$person" ]; then wrong "name the USER that the scheduler is for, or say --user"; fi
}

folder_named() {
  if [ $# -lt 2 ] || [ ! -d "$2" ]; then wrong "$1 needs a folder that is there"; fi
  (cd "$2" && pwd -P)
}

# ── words ──

say() { printf '%s\n' "$*"; }

# stop CODE SENTENCE [NEXT]
stop() {
  printf 'error: %s\n' "$2" >&2
  if [ -n "${3:-}" ]; then printf '  next: %s\n' "$3" >&2; fi
  exit "$1"
}

wrong() { stop $USAGE "$1" "${verb}-systemd-service.sh --help"; }

# A command as it can be typed.
shown() {
  local word line=
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=@+,-]*) line="$line '$(replaced "$word" "'" "'\\''")'" ;;
      *) line="$line $word" ;;
    esac
  done
  printf '%s' "${line# }"
}

# replaced TEXT OLD NEW: ${text//old/new} means another thing in every second bash.
replaced() {
  local rest=$1 done=
  while [ "${rest#*"$2"}" != "$rest" ]; do
    done=$done${rest%%"$2"*}$3
    rest=${rest#*"$2"}
  done
  printf '%s' "$done$rest"
}

# run WORDS...: a change; under --dry-run only told.
run() {
  changed=yes
  if [ $dry_run = yes ]; then
    say "would run: $(shown "$@")"
  else
    "$@" </dev/null
  fi
}

# ── whom it is for ──

choose_unit() {
  if [ $own = yes ]; then
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ]; then wrong "--user is for yourself: leave sudo out"; fi
    person=$(id -un)
    unit=$NAME.service
    template=$checkout/systemd/$NAME.service
    folder=${folder:-${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user}
    manager=(systemctl --user)
    journal=(journalctl --user)
  else
    case $person in
      -* | *[!A-Za-z0-9._-]*) stop $USAGE "no unit can be named for the user $person" "as $person: ${verb}-systemd-service.sh --user" ;;
    esac
    unit=$NAME@$person.service
    template=$checkout/systemd/$NAME@.service
    folder=${folder:-$root/etc/systemd/system}
    manager=(systemctl)
    journal=(journalctl)
    if [ -n "$root" ]; then manager+=("--root=$root"); fi
  fi
  file=$folder/$unit
}

# Sets uid, home and shell; home is empty for somebody who is not there.
look_up_account() {
  local line
  uid='' home='' shell=''
  if [ -n "$root" ]; then
    line=$(awk -F: -v name="$person" '$1 == name' "$root/etc/passwd") || return 0
  else
    line=$(getent passwd "$person") || return 0
  fi
  IFS=: read -r _ _ uid _ _ home shell <<<"$line"
  if [ $own = yes ]; then home=$HOME; fi
}

is_me() { [ "$(id -u)" = "$uid" ]; }

# Runs a program as the person: in this environment when that is who calls, else in that of their login shell.
as_person() {
  if is_me; then
    "$@" </dev/null
  else
    in_a_clean_environment ${told[@]+"${told[@]}"} "PATH=$(login_value PATH)" "$@" </dev/null
  fi
}

# in_a_clean_environment [NAME=VALUE...] PROGRAM...
in_a_clean_environment() {
  local words=(env -i "HOME=$home" "USER=$person" "LOGNAME=$person" "SHELL=$shell" "$@")
  if ! is_me; then words=(runuser -u "$person" -- "${words[@]}"); fi
  "${words[@]}"
}

# Sets `told`, the variables that the person's login shell sets, and `login`, those of them that are kept.
read_login() {
  local said='' name value line
  if [ -z "$root" ]; then
    # A session of its own: what runs as somebody else does not get this terminal.
    said=$(in_a_clean_environment PATH=/usr/local/bin:/usr/bin:/bin \
      setsid --wait timeout $LOGIN_SECONDS "$shell" -l -c env 2>/dev/null </dev/null) || said=
  fi
  told=()
  while IFS= read -r line; do
    if [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; then told+=("$line"); fi
  done <<<"$said"
  login=()
  for name in $KEPT; do
    # What a profile prints comes first.
    value=$(sed -n "s/^$name=//p" <<<"$said" | tail -n 1)
    case $name in
      PATH) value=$(path_of_service "$value") ;;
      LANG) value=${value:-C.UTF-8} ;;
    esac
    if [ -n "$value" ]; then login+=("$name=$value"); fi
  done
}

# The login's PATH with ~/.local/bin, each folder once, and without those that are gone after a boot.
path_of_service() {
  local rest="$home/.local/bin:${1:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}:" part path=:
  while [ -n "$rest" ]; do
    part=${rest%%:*}
    rest=${rest#*:}
    case $part in
      "$home"/*) ;;
      /run/* | /tmp/* | [!/]* | '') continue ;;
    esac
    case $path in *":$part:"*) continue ;; esac
    path=$path$part:
  done
  path=${path#:}
  printf '%s' "${path%:}"
}

# login_value NAME [DEFAULT]
login_value() {
  local one
  for one in "${login[@]}"; do
    case $one in "$1="*) printf '%s' "${one#*=}" && return 0 ;; esac
  done
  printf '%s' "${2:-}"
}

# ── install ──

install() {
  check_account
  check_rights
  read_login
  environment=$(login_value XDG_DATA_HOME "$home/.local/share")/tmux-orchestrator/service
  variables=$(login_value XDG_CONFIG_HOME "$home/.config")/tmux-orchestrator/environment
  check_checkout
  check_systemd
  check_room
  text=$(rendered)
  prepare_environment
  renewed=no
  if [ "$(cat "$file" 2>/dev/null || true)" != "$text" ]; then write_unit; fi
  if [ -z "$root" ]; then have_it_read; fi
  if [ "$("${manager[@]}" is-enabled "$unit" 2>/dev/null || true)" != enabled ]; then
    run "${manager[@]}" --quiet enable "$unit" || stop $FAILED "$unit was not enabled"
  fi
  if [ -z "$root" ]; then bring_up; fi
  conclude_install
}

check_account() {
  if [ -z "$home" ]; then stop $NOT_FOUND "there is no user $person" "getent passwd"; fi
  if [ ! -d "$root$home" ]; then stop $NOT_FOUND "$person has no home at $root$home"; fi
  # A line break would begin another line of the unit.
  case $checkout$home in *[[:cntrl:]]*) stop $FAILED "a path with a control character cannot stand in a unit" ;; esac
}

check_rights() {
  if [ $own = yes ] || [ -n "$root" ] || [ "$(id -u)" = 0 ]; then return 0; fi
  if [ $dry_run = yes ] && is_me; then return 0; fi
  stop $FAILED "only root installs a service of the system" "sudo $checkout/systemd/install-systemd-service.sh $person"
}

check_checkout() {
  place=$checkout
  if [ -n "$root" ]; then
    place=/${checkout#"$root"/}
    if [ "$place" = "/$checkout" ]; then stop $FAILED "the checkout $checkout is not below $root"; fi
    if [ ! -L "$root$environment/bin/python" ] && [ ! -x "$root$environment/bin/python" ]; then
      stop $NOT_NOW "$root$environment is missing" "in the system below $root, as $person: $place/setup.sh --service"
    fi
    return 0
  fi
  as_person test -r "$checkout/scheduler.py" -a -r "$checkout/lib/daemon.py" -a -x "$checkout/setup.sh" ||
    stop $FAILED "$person cannot read the checkout $checkout" "put it where $person may read it"
  as_person "$checkout/setup.sh" --verify >/dev/null 2>&1 ||
    stop $NOT_NOW "$person has not set up the toolkit" "as $person: $(shown "$checkout/setup.sh")"
}

check_systemd() {
  if [ -n "$root" ] || [ $dry_run = yes ]; then return 0; fi
  if ! runs; then
    if [ $own = yes ]; then
      stop $NOT_NOW "your service manager cannot be asked" "log in as $person, not by su or sudo, then: systemctl --user"
    fi
    stop $NOT_NOW "systemd does not run this system" "scheduler.py --queue-daemon runs without it"
  fi
}

runs() {
  case $("${manager[@]}" is-system-running 2>/dev/null || true) in '' | offline | unknown) return 1 ;; esac
}

# Nobody else's unit is overwritten, and one person gets one service.
check_room() {
  check_ours
  local other
  if [ $own = yes ]; then
    other=$NAME@$person.service
    if [ "$(systemctl is-enabled "$other" 2>/dev/null || true)" = enabled ]; then
      stop $BUSY "$person has a service of the system: $other" "sudo $checkout/systemd/uninstall-systemd-service.sh $person"
    fi
  elif [ -z "$root" ]; then
    other=$(login_value XDG_CONFIG_HOME "$home/.config")/systemd/user/$NAME.service
    if as_person test -e "$other"; then
      stop $BUSY "$person has a service of their own: $other" "as $person: $checkout/systemd/uninstall-systemd-service.sh --user"
    fi
  fi
}

check_ours() {
  local first=
  if [ ! -e "$file" ] && [ ! -L "$file" ]; then return 0; fi
  if [ -f "$file" ]; then read -r first <"$file" || true; fi
  [ "$first" = "$MARK" ] || stop $FAILED "$file is not of our making" "look at it, and move it away"
}

prepare_environment() {
  if [ -n "$root" ] || as_person test -d "$environment"; then return 0; fi
  changed=yes
  if [ $dry_run = yes ]; then
    say "would run as $person: $(shown "$checkout/setup.sh" --service)"
  else
    as_person "$checkout/setup.sh" --service ||
      stop $FAILED "the environment of the service was not made" "as $person: $(shown "$checkout/setup.sh" --service)"
  fi
}

# ── the unit ──

rendered() {
  local text one block=
  for one in "${login[@]}"; do block="$block"$'\n'"Environment=$(quoted "$one")"; done
  text=$(cat "$template")
  text=$(replaced "$text" '{uid}' "$uid")
  text=$(replaced "$text" '{python}' "$(quoted_word "$environment/bin/python")")
  text=$(replaced "$text" '{scheduler}' "$(quoted_word "$place/scheduler.py")")
  text=$(replaced "$text" '{environment_file}' "$(replaced "$variables" % %%)")
  replaced "$text" '{environment}' "${block#?}"
}

# For Environment=, where % begins a specifier.
quoted() {
  local text
  text=$(replaced "$1" \\ \\\\)
  text=$(replaced "$text" '"' '\"')
  printf '"%s"' "$(replaced "$text" % %%)"
}

# For a command line, where $ begins a variable too.
quoted_word() { quoted "$(replaced "$1" '$' '$$')"; }

# Written beside its place and then moved: systemd never reads half a unit.
write_unit() {
  changed=yes
  renewed=yes
  if [ $dry_run = yes ]; then
    say "would write $file:"
    local line
    while IFS= read -r line; do say "    $line"; done <<<"$text"
  else
    local draft=$folder/.$unit.new
    { mkdir -p "$folder" && printf '%s\n' "$text" >"$draft" && chmod 644 "$draft" && mv -f "$draft" "$file"; } ||
      stop $FAILED "could not write $file"
    say "Wrote $file."
  fi
}

# Also when an earlier run was ended before it came to that.
have_it_read() {
  if [ "$("${manager[@]}" show --property=NeedDaemonReload --value "$unit" 2>/dev/null || true)" = yes ]; then renewed=yes; fi
  if [ $renewed = no ]; then return 0; fi
  run "${manager[@]}" daemon-reload || stop $FAILED "systemd did not read $file"
}

bring_up() {
  local how=start
  if "${manager[@]}" --quiet is-active "$unit" 2>/dev/null; then
    if [ $renewed = no ]; then return 0; fi
    how=restart
  elif [ $dry_run = no ]; then
    # One that has failed too often would not be started by hand either.
    "${manager[@]}" reset-failed "$unit" >/dev/null 2>&1 </dev/null || true
  fi
  run "${manager[@]}" $how "$unit" || stop $FAILED "$unit is installed and did not start" "$(shown "${journal[@]}" -u "$unit" -n 30)"
}

conclude_install() {
  if [ $changed = no ]; then
    say "Nothing to do: $unit is installed$(if [ -z "$root" ]; then printf ' and runs'; fi)."
  elif [ $dry_run = yes ]; then
    say "Nothing was changed."
  elif [ -n "$root" ]; then
    say "$unit is installed below $root and starts with it."
  else
    say "$unit runs. Look at it: $(shown "${manager[@]}" status "$unit")"
  fi
  if [ -n "$root" ]; then return 0; fi
  if ! as_person env "PATH=$(login_value PATH)" sh -c 'command -v claude' >/dev/null; then
    say "Note: the service does not find claude. If agents are to run it, give $variables a line"
    say "  PATH=FOLDER_OF_CLAUDE:$(login_value PATH)"
  fi
  if [ $own = yes ] && [ "$(loginctl show-user "$person" --property=Linger --value 2>/dev/null || true)" != yes ]; then
    say "Note: your services end with your last login, and agents that they have started end too. To have them stay:"
    say "  loginctl enable-linger"
  fi
}

# ── uninstall ──

uninstall() {
  check_ours
  if [ -e "$file" ]; then
    check_may_remove
    # The unit goes last of all that it names: what was interrupted is found again by it.
    if [ -z "$root" ] && runs; then run "${manager[@]}" stop "$unit" || stop $FAILED "$unit was not stopped"; fi
    run "${manager[@]}" --quiet disable "$unit" || stop $FAILED "$unit was not disabled"
    remove_environment
    run rm -f "$file"
    if [ -z "$root" ] && runs; then
      run "${manager[@]}" daemon-reload || stop $FAILED "systemd did not notice that $file is gone"
      "${manager[@]}" reset-failed "$unit" >/dev/null 2>&1 </dev/null || true
    fi
  fi
  conclude_uninstall
}

check_may_remove() {
  if [ $own = yes ] || [ -n "$root" ] || [ $dry_run = yes ] || [ "$(id -u)" = 0 ]; then return 0; fi
  stop $FAILED "only root removes a service of the system" "sudo $checkout/systemd/uninstall-systemd-service.sh $person"
}

# What setup.sh --service has made. Somebody whose account is gone has taken it along.
remove_environment() {
  if [ -n "$root" ] || [ ! -d "$home" ]; then return 0; fi
  if ! is_me && [ "$(id -u)" != 0 ]; then return 0; fi
  read_login
  environment=$(login_value XDG_DATA_HOME "$home/.local/share")/tmux-orchestrator/service
  if ! as_person test -e "$environment/made-from"; then return 0; fi
  if [ $dry_run = yes ]; then
    say "would run as $person: $(shown rm -rf "$environment")"
  else
    as_person rm -rf "$environment" || stop $FAILED "could not remove $environment"
  fi
}

conclude_uninstall() {
  if [ $changed = no ]; then
    say "Nothing to do: $unit is not installed."
  elif [ $dry_run = yes ]; then
    say "Nothing was changed."
  else
    say "$unit is removed. Its agents go on; state, settings and worktrees stay."
    if [ -d "$file.d" ]; then say "Note: your own additions to it stay too: $file.d"; fi
  fi
}

main "$@"

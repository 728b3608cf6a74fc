#!/usr/bin/env bash
# Installs what is missing, writes the two configuration files once, and warms every script's environment.
# Runs with the bash 3.2 of macOS. What a step prints is shown only when the step fails.
set -euo pipefail
unset CDPATH

readonly NEEDED_UV=0.6.10    # the oldest that was seen to know `uv python find --script`; 0.6.0 does not
readonly NEEDED_PYTHON=3.11
readonly NEEDED_TMUX=3.0
readonly NEEDED_GIT=2.20
readonly NEEDED_CLAUDE=2.1
readonly PINNED_CLAUDE=2.1.330    # the tests run exactly this one
readonly CLAUDE_PACKAGE=@anthropic-ai/claude-code
readonly UV_INSTALLER=https://astral.sh/uv/install.sh

usage() {
  cat <<'USAGE'
Usage: ./setup.sh [--non-interactive] [--dev] [--verify] [--service]

Install what is missing (uv, tmux, git), write config.local.sh and config.yaml once, and
prepare the environment of every script. Running it again changes nothing.

Options:
  --non-interactive  Install without asking.
  --dev              Also install what the tests need: the pinned Claude Code, chromium, shellcheck, systemd, nats-server, iproute2.
  --verify           Only check and print a table; exit 0 when everything needed is there, else 1.
  --service          Only prepare the environment of the systemd service, as its installer does.
  -h, --help         Show this text.

Environment:
  PROJECTS_DIR           Where your projects are (default: ~/projects); written to config.local.sh.
  TMUX_ORCHESTRATOR_HOME Where the state is kept (default: ~/.local/state/tmux-orchestrator).

Examples:
  ./setup.sh
  PROJECTS_DIR=~/my-projects ./setup.sh --non-interactive
  ./setup.sh --verify
USAGE
}

main() {
  read_options "$@"
  find_uv || true
  if [ "$verify" = yes ]; then
    verify
    return
  fi
  log=$(mktemp "${TMPDIR:-/tmp}/orchestrator-setup.XXXXXX")
  trap 'rm -f "$log" "$log".*' EXIT
  if [ "$service" = yes ]; then
    find_uv || stop "uv $NEEDED_UV is missing." ./setup.sh
    warm_service
    return
  fi
  install_packages
  install_uv
  if [ "$dev" = yes ]; then install_claude; fi
  warm_environments
  if [ -d "$service_environment" ]; then warm_service; fi
  write_config
  make_folders
  make_executable
  conclude
}

read_options() {
  interactive=yes
  dev=no
  verify=no
  service=no
  changed=no
  log=
  while [ $# -gt 0 ]; do
    case $1 in
      --non-interactive) interactive=no ;;
      --dev) dev=yes ;;
      --verify) verify=yes ;;
      --service) service=yes ;;
      -h | --help) usage && exit 0 ;;
      *) printf 'setup: unknown option %s\n\n' "$1" >&2 && usage >&2 && exit 2 ;;
    esac
    shift
  done
  local_bin=$HOME/.local/bin
  users_path=$PATH
  config_local=config.local.sh
  config=$(absolute "${TMUX_ORCHESTRATOR_CONFIG:-${XDG_CONFIG_HOME:-$HOME/.config}/tmux-orchestrator/config.yaml}")
  state_home=$(absolute "${TMUX_ORCHESTRATOR_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/tmux-orchestrator}")
  service_environment=$(absolute "${XDG_DATA_HOME:-$HOME/.local/share}/tmux-orchestrator/service")
  wanted_projects=
  if [ -n "${PROJECTS_DIR:-}" ]; then wanted_projects=$(absolute "$PROJECTS_DIR"); fi
  cd "$(dirname "${BASH_SOURCE[0]}")"
}

# ── words ──

say() { printf '%s\n' "$*"; }

did() {
  changed=yes
  say "$*"
}

# Ends the run: what failed, the last lines of the log, what to type next.
stop() {
  printf 'setup: %s\n' "$1" >&2
  if [ -s "$log" ]; then tail -n 15 "$log" | sed 's/^/    /' >&2; fi
  if [ -n "${2:-}" ]; then printf '  next: %s\n' "$2" >&2; fi
  exit 1
}

# A command as it can be typed.
shown() {
  local word line=
  for word in "$@"; do line="$line $(shell_word "$word")"; done
  printf '%s' "${line# }"
}

shell_word() {
  case $1 in
    '' | *[!A-Za-z0-9_./:=@+,-]*) quoted "$1" ;;
    *) printf '%s' "$1" ;;
  esac
}

# In single quotes, so that every shell and Python's shlex read it back unchanged.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

absolute() {
  case $1 in
    /*) printf '%s' "$1" ;;
    \~/*) printf '%s' "$HOME/${1#??}" ;;
    *) printf '%s' "$PWD/$1" ;;
  esac
}

# ── running other programs ──

# agreed COMMAND-LINE: what would run, as one text.
agreed() {
  local answer
  if [ "$interactive" = no ]; then return 0; fi
  printf 'Run: %s  [Y/n] ' "$1" >&2
  read -r answer || return 1
  case $answer in '' | y | Y | yes) return 0 ;; esac
  return 1
}

# Keeps in the log what the command printed when it failed.
quietly() { "$@" >"$log" 2>&1 </dev/null && : >"$log"; }

# Asks, then runs it; fails when the person says no or the command fails.
attempt() { agreed "$(shown "$@")" && quietly "$@"; }

has() { command -v "$1" >/dev/null 2>&1; }

# The version that a tool tells, as digits and dots; empty when it does not run.
version_of() {
  local option=--version
  if [ "${1##*/}" = tmux ]; then option=-V; fi
  { "$1" "$option" 2>/dev/null </dev/null || true; } | sed -n '1s/^[^0-9]*\([0-9][0-9.]*\).*/\1/p'
}

# version_at_least FOUND NEEDED
version_at_least() {
  local found=$1. needed=$2.
  if [ -z "$1" ]; then return 1; fi
  while [ -n "$needed" ]; do
    if [ "$((10#0${found%%.*}))" -gt "$((10#0${needed%%.*}))" ]; then return 0; fi
    if [ "$((10#0${found%%.*}))" -lt "$((10#0${needed%%.*}))" ]; then return 1; fi
    found=${found#*.}
    needed=${needed#*.}
  done
  return 0
}

is_good() { version_at_least "$(version_of "$1")" "$2"; }

# ── packages of the system ──

# The one that is here: apt-get, dnf or brew; homebrew is a Mac that lacks it, none another system.
package_manager() {
  if [ "$(uname -s)" = Darwin ]; then
    if has brew; then say brew; else say homebrew; fi
  elif has apt-get; then
    say apt-get
  elif has dnf; then
    say dnf
  else
    say none
  fi
}

# What to type before the package manager's commands; fails when there is no way to use it.
root_prefix() {
  case $manager in none | homebrew) return 1 ;; esac
  if [ "$manager" = brew ] || [ "$(id -u)" = 0 ]; then return 0; fi
  has sudo || return 1
  # -n: a password prompt in a run that nobody watches would wait for ever.
  if [ "$interactive" = no ]; then say "sudo -n"; else say sudo; fi
}

install_packages() {
  manager=$(package_manager)
  list_missing
  if [ ${#missing[@]} -eq 0 ]; then return 0; fi
  local may_install=yes command
  prefix=$(root_prefix) || may_install=no
  if [ $may_install = yes ]; then refresh_lists; fi
  choose_packages
  if [ ${#packages[@]} -eq 0 ]; then return 0; fi
  if [ $may_install = no ]; then
    # uv can also come without root; the others cannot.
    if [ "${packages[*]}" = uv ]; then return 0; fi
    stop "${packages[*]}: missing, and not to be installed from here." "$(advice)"
  fi
  read -r -a command <<<"$prefix $(install_words) ${packages[*]}"
  if ! attempt "${command[@]}"; then
    if [ "${packages[*]}" = uv ]; then return 0; fi
    stop "not installed: ${packages[*]}." "$(shown "${command[@]}")"
  fi
  hash -r
  look_again
  did "Installed: ${packages[*]}."
}

# Sets `missing`: the tools that are absent or too old.
list_missing() {
  missing=()
  is_good tmux "$NEEDED_TMUX" || missing+=(tmux)
  is_good git "$NEEDED_GIT" || missing+=(git)
  if [ "$dev" = yes ]; then
    has npm || missing+=(npm)
    has shellcheck || missing+=(shellcheck)
    has_chromium || missing+=(chromium)
    has_nats_server || missing+=(nats-server)
    if [ "$(uname -s)" = Linux ]; then
      has systemd-analyze || missing+=(systemd)
      has_ip || missing+=(iproute2)
    fi
  fi
  find_uv || missing+=(uv)
}

# The package lists of a new machine are empty, and old ones name versions that are gone.
refresh_lists() {
  if [ "$manager" != apt-get ]; then return 0; fi
  local command
  read -r -a command <<<"$prefix apt-get update"
  # One dead source makes this fail although the others are fine: the installation decides.
  attempt "${command[@]}" || say "Note: ${command[*]} was not done or failed; going on with the present lists."
}

install_words() {
  case $manager in
    apt-get) say apt-get install --yes --no-install-recommends ;;
    dnf) say dnf install --assumeyes ;;
    *) say brew install ;;
  esac
}

# Turns `missing` into `packages`: what this system calls them, without what it does not have.
choose_packages() {
  packages=()
  local tool
  for tool in "${missing[@]}"; do
    case $manager-$tool in
      brew-npm) packages+=(node) ;;
      *-npm) packages+=(nodejs npm) ;;
      dnf-shellcheck) packages+=(ShellCheck) ;;
      *-chromium) if has_package chromium; then packages+=(chromium); else no_chromium; fi ;;
      *-systemd) if has_package systemd; then packages+=(systemd); else no_systemd; fi ;;
      *-nats-server) if has_package nats-server; then packages+=(nats-server); else no_nats_server; fi ;;
      dnf-iproute2) packages+=(iproute) ;;
      *-iproute2) if has_package iproute2; then packages+=(iproute2); else no_ip; fi ;;
      *-uv) if has_package uv; then packages+=(uv); fi ;;
      *) packages+=("$tool") ;;
    esac
  done
}

has_package() {
  case $manager in
    # Not grep -q: it leaves at the first match, and apt-cache then fails for a closed pipe.
    apt-get) LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep '^ *Candidate: [0-9]' >/dev/null ;;
    dnf) dnf --quiet list "$1" >/dev/null 2>&1 ;;
    brew) [ "$1" != chromium ] ;;
    *) return 1 ;;
  esac
}

has_chromium() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if has "$name"; then return 0; fi
  done
  [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}

# Debian's stands where the PATH of a person may not lead.
has_nats_server() { has nats-server || [ -x "/usr/sbin/nats-server" ]; }

has_ip() { has ip || [ -x "/usr/sbin/ip" ]; }

no_ip() { say "Note: this system has no package of iproute2; the tests of a fleet run without networks of their own."; }

no_systemd() { say "Note: this system has no package of systemd; the tests that check its units are left out."; }

no_nats_server() { say "Note: this system has no package of nats-server; the tests of a fleet are left out."; }

no_chromium() { say "Note: this system has no package of chromium; the browser tests need Chromium or Chrome."; }

# A package can be there and still be too old.
look_again() {
  local tool
  for tool in "${missing[@]}"; do
    case $tool in
      tmux) is_good tmux "$NEEDED_TMUX" || stop "tmux $NEEDED_TMUX is needed; this system's package gives: $(version_of tmux)." ;;
      git) is_good git "$NEEDED_GIT" || stop "git $NEEDED_GIT is needed; this system's package gives: $(version_of git)." ;;
    esac
  done
}

# What a person types who can become root, or who uses a package manager that is not known here.
advice() {
  local words
  case $manager in
    none) say "install ${packages[*]} with this system's package manager, then run ./setup.sh again" ;;
    homebrew) say "install Homebrew (https://brew.sh), then run ./setup.sh again" ;;
    *)
      words="$(install_words) ${packages[*]}"
      if [ "$manager" = apt-get ]; then words="apt-get update && $words"; fi
      say "su -c '$words'"
      ;;
  esac
}

# ── uv ──

# Looks where it is often installed, too.
find_uv() {
  if is_good uv "$NEEDED_UV"; then return 0; fi
  is_good "$local_bin/uv" "$NEEDED_UV" || return 1
  PATH=$local_bin:$PATH
  export PATH
  hash -r
}

install_uv() {
  if find_uv; then return 0; fi
  if has pipx; then attempt pipx install --force uv || true; fi
  if ! find_uv && has python3; then uv_by_pip; fi
  if ! find_uv && has curl; then uv_by_its_installer; fi
  find_uv || stop "uv $NEEDED_UV could not be installed." "curl -LsSf $UV_INSTALLER | sh"
  did "Installed: uv $(version_of uv)."
}

# A Python that the system manages refuses pip; there uv gets a small environment of its own.
uv_by_pip() {
  local install=(-m pip install --upgrade uv)
  agreed "$(shown python3 "${install[@]}" --user)" || return 0
  if quietly python3 "${install[@]}" --user && find_uv; then return 0; fi
  local home=$HOME/.local/share/tmux-orchestrator/uv
  if quietly python3 -m venv "$home" && quietly "$home/bin/python" "${install[@]}"; then
    mkdir -p "$local_bin"
    ln -sf "$home/bin/uv" "$local_bin/uv"
  else
    rm -rf "$home"
  fi
}

uv_by_its_installer() {
  agreed "curl -LsSf $UV_INSTALLER | sh" || return 0
  # Fetched whole before it runs: half a script is worse than none.
  if quietly curl -LsSf "$UV_INSTALLER" -o "$log.installer"; then
    quietly env UV_INSTALL_DIR="$local_bin" UV_NO_MODIFY_PATH=1 sh "$log.installer" || true
  fi
}

# ── what the tests need ──

claude_folder() {
  local system=linux machine=x64
  if [ "$(uname -s)" = Darwin ]; then system=darwin; fi
  case $(uname -m) in arm64 | aarch64) machine=arm64 ;; esac
  say ".dev/claude/node_modules/$CLAUDE_PACKAGE-$system-$machine"
}

has_pinned_claude() {
  local folder
  folder=$(claude_folder)
  [ -x "$folder/claude" ] && grep -q "\"version\": *\"$PINNED_CLAUDE\"" "$folder/package.json"
}

# --ignore-scripts: its postinstall would only copy the program over a stub that nobody starts here.
install_claude() {
  if has_pinned_claude; then return 0; fi
  local command=(npm install --prefix .dev/claude --no-save --ignore-scripts "$CLAUDE_PACKAGE@$PINNED_CLAUDE")
  mkdir -p .dev/claude
  quietly "${command[@]}" || stop "the pinned Claude Code was not installed." "$(shown "${command[@]}")"
  has_pinned_claude || stop "npm left no $(claude_folder)/claude." "$(shown "${command[@]}")"
  did "Installed: Claude Code $PINNED_CLAUDE for the tests, in .dev/claude."
}

# ── environments of the scripts ──

# Every script that declares its dependencies for uv; those of the tests only with --dev.
doors() {
  local file first
  for file in *.py */*.py tests/*/*.py; do
    if [ ! -f "$file" ]; then continue; fi
    read -r first <"$file" || continue
    case $first in '#!'*'uv run'*--script*) ;; *) continue ;; esac
    if [ "$dev" = no ] && is_dev_door "$file"; then continue; fi
    say "$file"
  done
}

# The extra of pyproject.toml that a script's dependency line names; empty when it names none.
extra_of() { sed -n 's/^# dependencies = .*"tmux-orchestrator\[\([a-z]*\)\]".*/\1/p' "$1"; }

is_dev_door() { [ "$(extra_of "$1")" = dev ]; }

# Where uv keeps a script's environment; empty when there is none yet. uv would make its cache to look
# into it, and --verify writes nothing.
environment_of() {
  local python
  if [ ! -d "$(uv cache dir)" ]; then return 0; fi
  python=$(uv python find --offline --script "$1" 2>/dev/null) || return 0
  case $python in */environments-v*/*/bin/*) if [ -x "$python" ]; then say "${python%/bin/*}"; fi ;; esac
}

# Names what an environment was made from; left in it as `made-from`.
origin_of() { { cat requirements.lock pyproject.toml && grep '^# dependencies = ' "$1"; } | cksum; }

is_warm() {
  local environment
  environment=$(environment_of "$1")
  [ -n "$environment" ] && [ "$(cat "$environment/made-from" 2>/dev/null)" = "$(origin_of "$1")" ]
}

# `uv sync --script` makes the environment but knows no constraints (uv 0.13.9), hence the second step.
# A later start keeps these versions: uv leaves an environment alone that satisfies the script.
warm() {
  local environment name extra=()
  name=$(extra_of "$1")
  if [ -n "$name" ]; then extra=(--extra "$name"); fi
  uv sync --quiet --script "$1" || return 1
  environment=$(environment_of "$1")
  uv pip install --quiet --python "$environment/bin/python" --require-hashes \
    --constraint requirements.lock -r pyproject.toml ${extra[@]+"${extra[@]}"} || return 1
  origin_of "$1" >"$environment/made-from"
}

warm_environments() {
  local door cold=()
  while read -r door; do
    is_warm "$door" || cold+=("$door")
  done < <(doors)
  local index=0
  while [ $index -lt ${#cold[@]} ]; do
    warm_pair "${cold[@]:index:2}"
    index=$((index + 2))
  done
  if [ $index -gt 0 ]; then did "Prepared the environments of: ${cold[*]}."; fi
}

warm_pair() {
  local second=
  warm "$1" >"$log" 2>&1 </dev/null &
  local first=$!
  if [ $# -gt 1 ]; then
    warm "$2" >"$log.2" 2>&1 </dev/null &
    second=$!
  fi
  local failed=
  wait "$first" || failed=$1
  if [ -n "$second" ] && ! wait "$second"; then
    failed=$2
    cat "$log.2" >>"$log"
  fi
  if [ -n "$failed" ]; then stop "the environment of $failed was not made." "uv sync --script $failed"; fi
  : >"$log"
}

# The service runs for weeks, and `uv cache prune` removes the environments of all scripts (uv 0.13.9): it gets one
# outside of uv's cache, by the same lock.
warm_service() {
  if service_is_warm; then return 0; fi
  local new=$service_environment.new old=$service_environment.old
  if ! mkdir -p "${service_environment%/*}" || ! rm -rf "$new" "$old"; then
    stop "could not write in ${service_environment%/*}."
  fi
  if ! make_service_environment "$new" >"$log" 2>&1 </dev/null; then
    rm -rf "$new"
    stop "the environment of the service was not made." "./setup.sh --service"
  fi
  : >"$log"
  # Put there as a whole: the service may be running from the old one.
  if [ -d "$service_environment" ]; then mv "$service_environment" "$old"; fi
  mv "$new" "$service_environment" || stop "could not write $service_environment."
  rm -rf "$old"
  did "Prepared the environment of the service."
}

make_service_environment() {
  uv venv --quiet --no-project --python ">=$NEEDED_PYTHON" "$1" || return 1
  uv pip install --quiet --python "$1/bin/python" --require-hashes \
    --constraint requirements.lock -r pyproject.toml || return 1
  # What is started by its name (python -m lib.rehearsal) finds the checkout, as in the environments of the scripts.
  pwd >"$(echo "$1"/lib/python3*/site-packages)/tmux-orchestrator.pth" || return 1
  origin_of_service >"$1/made-from"
}

origin_of_service() { origin_of scheduler.py && pwd; }

service_is_warm() {
  [ -x "$service_environment/bin/python" ] &&
    [ "$(cat "$service_environment/made-from" 2>/dev/null)" = "$(origin_of_service)" ]
}

# ── configuration ──

# What config.local.sh says now.
configured_projects() {
  # shellcheck disable=SC1090
  (unset PROJECTS_DIR && . "./$config_local" >/dev/null 2>&1 && printf '%s' "${PROJECTS_DIR:-}") || true
}

# Written beside its place and then moved: a reader never sees half a file.
write_file() {
  if ! cat >"$1.new" || ! mv "$1.new" "$1"; then stop "could not write $1."; fi
}

write_config() {
  if [ ! -e "$config_local" ]; then
    case $wanted_projects in *$'\n'*) stop "PROJECTS_DIR holds a line break." ;; esac
    write_file "$config_local" <<CONFIG
# The choices of this machine, written once by setup.sh; edit it freely.
export PROJECTS_DIR=$(quoted "${wanted_projects:-$HOME/projects}")
CONFIG
    did "Wrote $config_local."
  elif [ -n "$wanted_projects" ] && [ "$wanted_projects" != "$(configured_projects)" ]; then
    say "Note: $config_local says PROJECTS_DIR=$(shell_word "$(configured_projects)"); kept. Edit it to change that."
  fi
  if [ ! -e "$config" ]; then
    mkdir -p "$(dirname "$config")" || stop "could not make $(dirname "$config")."
    write_file "$config" <config.example.yaml
    did "Wrote $config."
  fi
}

make_folders() {
  local projects
  projects=$(configured_projects)
  if [ -n "$projects" ] && [ ! -d "$projects" ]; then
    mkdir -p "$projects" || stop "could not make the projects folder $projects." "edit $config_local"
    did "Made $projects."
  fi
  if [ ! -d "$state_home" ]; then
    if ! mkdir -p "$(dirname "$state_home")" || ! mkdir -m 700 "$state_home"; then stop "could not make $state_home."; fi
    did "Made $state_home."
  fi
}

make_executable() {
  local file first
  for file in *.py *.sh */*.py */*.sh tests/*/*.py; do
    if [ ! -f "$file" ] || [ -x "$file" ]; then continue; fi
    read -r first <"$file" || continue
    case $first in '#!'*) chmod +x "$file" && did "Made executable: $file." ;; esac
  done
}

conclude() {
  if [ "$changed" = no ]; then
    say "Nothing to do: everything is in place."
  else
    say "Setup is done. Check it any time: ./setup.sh --verify"
  fi
  if [ "$PATH" != "$users_path" ]; then
    say "Note: uv is in $local_bin, which your PATH lacks or names too late. Add to your shell's profile:"
    # shellcheck disable=SC2016
    say '  export PATH="$HOME/.local/bin:$PATH"'
  fi
}

# ── verify: reads only ──

verify() {
  all_hold=yes
  row Check Found Needed Next
  check uv "$(version_of uv)" "$NEEDED_UV" ./setup.sh
  check python "$(python_version)" "$NEEDED_PYTHON" "./setup.sh (uv brings one)"
  check tmux "$(version_of tmux)" "$NEEDED_TMUX" ./setup.sh
  check git "$(version_of git)" "$NEEDED_GIT" ./setup.sh
  check_claude
  check_place config.local.sh "$config_local"
  check_place config.yaml "$config"
  check_place "projects folder" "$(configured_projects)"
  check_place "state folder" "$state_home"
  check_environments
  if [ "$dev" = yes ]; then check_test_tools; fi
  [ "$all_hold" = yes ]
}

row() { printf '%-16s %-12s %-12s %s\n' "$@"; }

# check NAME FOUND-VERSION NEEDED-VERSION HINT
check() {
  if version_at_least "$2" "$3"; then
    row "$1" "$2" ">= $3" ""
  else
    all_hold=no
    row "$1" "${2:-missing}" ">= $3" "$4"
  fi
}

check_place() {
  if [ -n "$2" ] && [ -e "$2" ]; then
    row "$1" found "" ""
  else
    missing_row "$1" "" ./setup.sh
  fi
}

missing_row() {
  all_hold=no
  row "$1" missing "$2" "$3"
}

# The Python that uv would take for the scripts; without uv, the one on PATH.
python_version() {
  local python
  python=$(uv python find --offline --no-cache --no-project ">=$NEEDED_PYTHON" 2>/dev/null) || python=python3
  version_of "$python"
}

check_claude() {
  local found hint="optional: the demo and rehearsal need none. npm install -g $CLAUDE_PACKAGE"
  found=$(version_of claude)
  if version_at_least "$found" "$NEEDED_CLAUDE"; then hint=; fi
  row claude "${found:-missing}" ">= $NEEDED_CLAUDE" "$hint"
}

check_environments() {
  local door count=0 cold=()
  while read -r door; do
    count=$((count + 1))
    is_warm "$door" || cold+=("$door")
  done < <(doors)
  row environments "$((count - ${#cold[@]})) of $count" "$count" "${cold[*]+"./setup.sh (missing: ${cold[*]})"}"
  if [ ${#cold[@]} -gt 0 ]; then all_hold=no; fi
  if [ ! -d "$service_environment" ]; then return 0; fi
  if service_is_warm; then row service found "" ""; else missing_row service "" ./setup.sh; fi
}

check_test_tools() {
  if has_pinned_claude; then
    row "pinned claude" "$PINNED_CLAUDE" "$PINNED_CLAUDE" ""
  else
    missing_row "pinned claude" "$PINNED_CLAUDE" "./setup.sh --dev"
  fi
  if has shellcheck; then row shellcheck found "" ""; else missing_row shellcheck "" "./setup.sh --dev"; fi
  if has_chromium; then row chromium found "" ""; else missing_row chromium "" "./setup.sh --dev"; fi
  if has_nats_server; then row nats-server found "" ""; else missing_row nats-server "" "./setup.sh --dev"; fi
  if [ "$(uname -s)" != Linux ]; then return 0; fi
  if has systemd-analyze; then row systemd found "" ""; else missing_row systemd "" "./setup.sh --dev"; fi
  if has_ip; then row iproute2 found "" ""; else missing_row iproute2 "" "./setup.sh --dev"; fi
}

main "$@"

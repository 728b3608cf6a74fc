#!/bin/sh
# What every git hook of an agent's worktree runs: it keeps an agent to its own branch, signs its commits, tells the
# daemon of what has moved, and then runs the user's own hook of the same name.
#
# `lib/git/guards.py` puts links to this file, named as git names its hooks, into a folder of the agent, with a file `rules`:
# lines of a word and its value. POSIX shell, since a rebase runs it for every commit twice: 2 ms, and Python takes 16.
# What it refuses it tells on stderr, as a sentence for the agent, and exits with 1: git then changes nothing.

set -u
LC_ALL=C
folder=${0%/*}
hook=${0##*/}
[ -f "$folder/rules" ] || exit 0 # nobody is guarded any more

# -- rules --

# Read `rules` into variables; of `free` and `forced` lines there may be many.
read_rules() {
  home='' agent='' epoch='' role='' orchestration='' own='' integration='' users='' free='' forced=''
  while IFS=' ' read -r word value; do
    case $word in
      home) home=$value ;;
      agent) agent=$value ;;
      epoch) epoch=$value ;;
      role) role=$value ;;
      orchestration) orchestration=$value ;;
      own) own=$value ;;
      integration) integration=$value ;;
      users) users=$value ;;
      free) free="$free $value" ;;
      forced) forced="$forced $value" ;;
    esac
  done < "$folder/rules"
}

# Whether a ref ($1) fits one of the patterns ($2, with spaces between: git takes none in a ref).
fits() {
  set -f # the patterns are for refs, not for files
  for pattern in $2; do
    # shellcheck disable=SC2254 # it is a pattern
    case $1 in $pattern) set +f && return 0 ;; esac
  done
  set +f
  return 1
}

# Whether a name of an object stands for none: all zeros, however many a repository has.
is_none() {
  case $1 in *[!0]*) return 1 ;; esac
}

# -- the daemon --

# Leave a line of four words in the spool, whole or not at all, and wake the daemon. The names are those of lib/front/hook.py.
report() {
  [ -d "$home/spool" ] || return 0
  nanoseconds=$(date +%s%N)
  case $nanoseconds in *N) nanoseconds=${nanoseconds%N}000000000 ;; esac # macOS
  name=0$nanoseconds-$$-$agent-$epoch
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" > "$home/spool/.$name" &&
    mv "$home/spool/.$name" "$home/spool/$name.ref"
  # Opened for both, since a pipe that nobody reads would not open for writing.
  if [ -p "$home/wake" ]; then printf '!' 1<> "$home/wake"; fi
}

refuse() {
  printf 'tmux-orchestrator: %s\n' "$4" >&2
  report refused "$1" "$2" "$3"
  exit 1
}

# -- refs --

# Stop a transaction that moves what is not this agent's. Whatever way leads here (commit, merge, branch, push to this
# repository, update-ref, --no-verify), git asks before it writes.
check_refs() {
  while IFS=' ' read -r old new ref; do
    [ -n "$ref" ] || continue
    case $ref in
      "$own" | "$integration")
        if is_none "$new"; then keep "$old" "$new" "$ref" "this branch holds the team's work"; fi
        ;;
      refs/heads/*)
        keep "$old" "$new" "$ref" "the $role works on ${own#refs/heads/} only. To hand work over, commit there; to take \
work, merge a branch into yours. The starting branch gets the work through the merge hub"
        ;;
      refs/tags/*)
        # A new tag is welcome. Who forces one need not tell git what was there.
        if is_none "$new" || ! is_none "$old" || git rev-parse --quiet --verify "$ref" > /dev/null; then
          keep "$old" "$new" "$ref" "a tag stays where it is: make one of another name"
        fi
        ;;
      refs/stash)
        keep "$old" "$new" "$ref" "the stash is one for all worktrees: commit on your branch instead, and amend later"
        ;;
      refs/orchestrator/* | refs/replace/*)
        keep "$old" "$new" "$ref" "these are not an agent's"
        ;;
    esac
  done
}

keep() {
  fits "$3" "$free $forced" || refuse "$1" "$2" "$3" "refused to change ${3#refs/heads/}: $4."
}

# Tell of what has moved: this agent's branch, and remote branches that a push without its hook has reached.
tell_refs() {
  while IFS=' ' read -r old new ref; do
    case $ref in
      '') ;;
      "$own") report moved "$old" "$new" "$ref" ;;
      refs/remotes/*)
        if is_unverified push; then report unverified "$old" "$new" "$ref"; fi
        ;;
    esac
  done
}

# Whether the git that runs this hook was told to run no hooks that can refuse. Known where there is /proc.
is_unverified() {
  words=$(tr '\0' '\n' 2> /dev/null < "/proc/$PPID/cmdline") || return 1
  verb=''
  IFS='
'
  for word in $words; do
    case $word in
      commit | push) verb=${verb:-$word} ;;
      --no-v*) [ "$verb" = "$1" ] && unset IFS && return 0 ;;
      -n | -[aqvsepzo]*n*) [ "$verb" = commit ] && [ "$1" = commit ] && unset IFS && return 0 ;;
    esac
  done
  unset IFS
  return 1
}

# -- pushes --

# Lines of: local ref, local commit, remote ref, remote commit.
check_push() {
  while IFS=' ' read -r _local new ref old; do
    [ -n "$ref" ] || continue
    fits "$ref" "$forced" && continue
    if is_none "$new"; then refuse "$old" "$new" "$ref" "refused to delete ${ref#refs/heads/} of the remote."; fi
    case $ref in
      "$own" | "$integration") ;;
      refs/tags/*)
        if ! is_none "$old"; then refuse "$old" "$new" "$ref" "refused to move the remote's tag ${ref#refs/tags/}."; fi
        ;;
      *)
        fits "$ref" "$free" || refuse "$old" "$new" "$ref" \
          "refused to push to ${ref#refs/heads/}: the $role may push ${own#refs/heads/} only."
        ;;
    esac
    if ! is_none "$old" && ! git merge-base --is-ancestor "$old" "$new" 2> /dev/null; then
      refuse "$old" "$new" "$ref" "refused to force ${ref#refs/heads/}: the remote has commits that yours do not hold. \
Fetch and merge them first."
    fi
  done
}

# -- signatures --

# Add to a commit's message which team, role and message it comes from; what is there stays.
sign() {
  is_worth_signing "$1" || return 0
  set -- "$1" --trailer "Orchestration: $orchestration" --trailer "Agent-Role: $role"
  if IFS= read -r message 2> /dev/null < "$folder/message"; then set -- "$@" --trailer "Message-Id: $message"; fi
  file=$1 && shift
  git interpret-trailers --in-place --if-exists doNothing "$@" "$file"
}

# Whether a message says something, and is not signed yet. One whose last line does not end gets an end: what git
# appends would be a part of it.
is_worth_signing() {
  said=no ends=yes
  while IFS= read -r line || { [ -n "$line" ] && ends=no; }; do
    case $line in
      "Orchestration: $orchestration") return 1 ;;
      '' | '#'*) ;;
      *) said=yes ;;
    esac
  done < "$1"
  [ $said = yes ] || return 1
  if [ $ends = no ]; then echo >> "$1"; fi
}

# -- the user's own --

# Read the input of a hook into $input, without a process.
read_input() {
  input=''
  while IFS= read -r line || [ -n "$line" ]; do
    input="$input$line
"
  done
}

# Run the user's hook of this name as git would have, with $input as its input when that was read.
run_users() {
  case $users in
    '') return 0 ;;
    /*) program=$users/$hook ;;
    *) program=./$users/$hook ;; # git runs hooks at the top of the worktree
  esac
  [ -x "$program" ] || return 0
  if [ -n "${input+x}" ]; then
    printf '%s' "$input" | "$program" "$@"
  else
    "$program" "$@"
  fi
}

read_rules
case $hook in
  reference-transaction)
    read_input
    case $1 in
      prepared) check_refs ;;
      committed) tell_refs ;;
    esac <<END
$input
END
    ;;
  pre-push)
    read_input
    check_push <<END
$input
END
    ;;
  prepare-commit-msg)
    case ${2:-} in message | merge | squash | commit) sign "$1" ;; esac
    ;;
  commit-msg) sign "$1" ;;
  post-commit)
    if is_unverified commit; then report unverified "" "" "$own"; fi
    ;;
esac
run_users "$@"

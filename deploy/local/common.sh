# shellcheck shell=bash
# Shared by up.sh and down.sh: where things are, and which processes are ours. Sourced, not run.
#
# Each process that up.sh starts leaves a file NAME.pid with its pid and start time. A pid alone can belong to somebody
# else by the time down.sh looks; pid and start time cannot.

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

default_data() { printf '%s/chordfs' "${XDG_STATE_HOME:-$HOME/.local/state}"; }
default_mount() { printf '%s/chordfs' "$HOME"; }

# The kernel's start time of a process, field 22 of its stat line; empty when there is no such process.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The second field is the name in parentheses, which may hold spaces; what follows it is counted from the third.
  local fields
  read -ra fields <<<"${stat##*) }"
  # A zombie has ended; only its parent has not collected its exit status yet.
  [ "${fields[0]}" != Z ] || return 0
  printf '%s' "${fields[19]}"
}

remember() { printf '%s %s\n' "$2" "$(start_time "$2")" >"$1"; }

# Is the process that left this file still running?
alive() {
  local pid started
  [ -f "$1" ] || return 1
  read -r pid started <"$1" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ]
}

pid_of() { cut -d' ' -f1 "$1"; }

# wait_until SECONDS COMMAND...: polls until the command succeeds.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

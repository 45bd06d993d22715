# shellcheck shell=bash
# Shared by up.sh and down.sh: default folders, and which processes are ours. Sourced, not run.
#
# For each process that it starts, up.sh writes a file NAME.pid with the pid and the start time. A pid alone may have been
# reused by the time down.sh runs; the pair identifies one process.

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

default_data() { printf '%s/chordfs' "${XDG_STATE_HOME:-$HOME/.local/state}"; }
default_mount() { printf '%s/chordfs' "$HOME"; }

# Prints the kernel's start time of a process, field 22 of its stat line; nothing if there is no such process.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The second field is the name in parentheses, which may contain spaces. `fields` begins with the third field.
  local fields
  read -ra fields <<<"${stat##*) }"
  # A zombie has ended; only its parent has not collected its exit status yet.
  [ "${fields[0]}" != Z ] || return 0
  printf '%s' "${fields[19]}"
}

remember() { printf '%s %s\n' "$2" "$(start_time "$2")" >"$1"; }

# Whether the process of a pid file is still running.
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

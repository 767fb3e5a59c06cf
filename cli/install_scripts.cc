#include "cli/install_scripts.h"

namespace cli {

namespace {

// Sums are SHA-1, as digest.h has them.
constexpr const char* kCommon = R"sh(
root=$HOME/.local/share/sandbox
program=$root/bin/sandbox-agent
state=$HOME/.local/state/sandbox-agent
service=sandbox-agent.service
if [ -z "${XDG_RUNTIME_DIR-}" ] && [ -d "/run/user/$(id -u)" ]; then
  XDG_RUNTIME_DIR=/run/user/$(id -u)
  export XDG_RUNTIME_DIR
fi

sum_of() { sha1sum <"$1" 2>/dev/null | cut -d' ' -f1; }
short_pause() { sleep 0.1 2>/dev/null || sleep 1; }
alive() {
  [ -n "$1" ] && [ -d "/proc/$1" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}
# The process that agent.json names, if it is an agent: numbers are used again.
agent_pid() {
  named=$(sed -n 's/.*"PID":\([0-9][0-9]*\).*/\1/p' "$state/agent.json" 2>/dev/null)
  if alive "$named"; then
    case $(readlink "/proc/$named/exe") in
      */sandbox-agent*) printf '%s' "$named" ;;
    esac
  fi
}
has_manager() {
  command -v systemctl >/dev/null 2>&1 && systemctl --user show-environment >/dev/null 2>&1
}
service_pid() {
  if has_manager; then
    systemctl --user show -p MainPID "$service" 2>/dev/null | sed -n 's/^MainPID=//p'
  fi
}
say_agent() {
  say agent "$(cat "$state/agent.json")"
  say pid "$1"
  if [ "$(service_pid)" = "$1" ]; then
    say service yes
  fi
}
say_log() { tail -n 3 "$state/agent.log" 2>/dev/null | say_lines why; }
started=
start_daemon() {
  detach=nohup
  if command -v setsid >/dev/null 2>&1; then
    detach=setsid
  fi
  (cd / && exec $detach "$state/serve") </dev/null >>"$state/agent.log" 2>&1 &
  started=$!
}
# Until an agent other than $1 listens. One that we started and that has ended may have met another
# one on its way: so it gets a little time, but not all of it.
comes_to_listen() {
  tries=0
  until [ -n "$(agent_pid)" ] && [ "$(agent_pid)" != "$1" ]; do
    tries=$((tries + 1))
    if [ -n "$started" ] && ! alive "$started"; then
      tries=$((tries + 20))
    fi
    if [ "$tries" -gt 400 ]; then
      return 1
    fi
    short_pause
  done
}
)sh";

constexpr const char* kLook = R"sh(
say system "$(uname -s)"
say machine "$(uname -m)"
say os "$(. /etc/os-release 2>/dev/null && printf '%s' "${PRETTY_NAME-}")"
say home "$HOME"
say program "$program"
say state "$state"
say git "$(git --version 2>/dev/null)"
if [ -f "$program" ]; then
  say sum "$(sum_of "$program")"
fi
if [ -f "$state/serve" ]; then
  say_lines serve <"$state/serve"
fi
running=$(agent_pid)
if [ -n "$running" ]; then
  say_agent "$running"
  say running "$(sum_of "/proc/$running/exe")"
fi
)sh";

constexpr const char* kPut = R"sh(
cannot_place() {
  say problem place
  printf '%s\n' "$1" | say_lines why
}
# The program that was seen to run is the one to go back to, not one that never did.
keep_previous() {
  ran=$(agent_pid)
  if [ -f "$program" ] &&
    { [ -z "$ran" ] || [ "$(sum_of "/proc/$ran/exe")" = "$(sum_of "$program")" ]; }; then
    ln -f "$program" "$program.previous" 2>/dev/null || cp -p "$program" "$program.previous"
  fi
}
move_in() {
  mkdir -p "$root/bin" && chmod 700 "$root/bin" && keep_previous &&
    mv -f "$stage/sandbox-agent" "$program.new" && mv -f "$program.new" "$program"
}
put() {
  if ! stage=$(mktemp -d "$HOME/.sandbox-install.XXXXXX" 2>&1); then
    cannot_place "$stage"
    return
  fi
  trap '' PIPE  # the client may be gone when there is something to say
  trap 'rm -rf "$stage"' EXIT
  trap 'exit 1' HUP INT TERM
  dd of="$stage/sandbox-agent" bs=65536 conv=fsync 2>"$stage/why"
  if [ "$(sum_of "$stage/sandbox-agent")" != "$sum" ]; then
    say problem transfer
    sed -n '/^dd: /p' "$stage/why" | say_lines why
    return
  fi
  chmod 700 "$stage/sandbox-agent"
  if ! version=$("$stage/sandbox-agent" --version 2>"$stage/why"); then
    say problem cannot_run
    say_lines why <"$stage/why"
    ldd "$stage/sandbox-agent" 2>&1 | grep 'not found' | say_lines needs
    return
  fi
  say version "$version"
  if [ "$place" = yes ]; then
    if ! told=$(move_in 2>&1); then
      cannot_place "$told"
      return
    fi
    sync "$root/bin" 2>/dev/null
  fi
}
put
)sh";

constexpr const char* kStart = R"sh(
put_text() { printf '%s' "$3" >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; }
lingers() { [ "$(loginctl show-user "$(id -un)" -p Linger 2>/dev/null)" = Linger=yes ]; }
start_service() {
  units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
  mkdir -p "$units" && put_text "$units/$service" 600 "$unit" &&
    systemctl --user daemon-reload && systemctl --user enable "$service" &&
    systemctl --user restart "$service"
}
start() {
  if ! added=$(mkdir -p "${state%/*}" && "$program" authorize --state "$state" --user "$user" "$key" 2>&1); then
    say problem authorize
    printf '%s\n' "$added" | say_lines why
    return
  fi
  say authorized "$added"
  running=$(agent_pid)
  if [ -n "$running" ]; then
    say_agent "$running"
    return
  fi
  if ! told=$(put_text "$state/serve" 700 "$serve" 2>&1); then
    say problem start
    printf '%s\n' "$told" | say_lines why
    return
  fi
  as_service=no
  if has_manager; then
    lingers || loginctl --no-ask-password enable-linger >/dev/null 2>&1
    if lingers; then
      as_service=yes
    else
      say no_linger yes
    fi
  fi
  if [ "$as_service" = no ]; then
    start_daemon
  elif ! told=$(start_service 2>&1); then
    say problem start
    printf '%s\n' "$told" | say_lines why
    return
  fi
  if comes_to_listen ''; then
    say_agent "$(agent_pid)"
  else
    say problem start
    say_log
  fi
}
start
)sh";

constexpr const char* kHandOver = R"sh(
trap '' HUP PIPE  # it goes on to its end though the connection that began it is gone
restart() {
  if [ "$as_service" = yes ]; then
    systemctl --user restart "$service" >/dev/null 2>&1
  else
    if alive "$1"; then
      kill -TERM "$1"
    fi
    tries=0
    while alive "$1" && [ "$tries" -lt 700 ]; do
      tries=$((tries + 1))
      if [ "$tries" -eq 600 ]; then
        kill -KILL "$1"
      fi
      short_pause
    done
    start_daemon
  fi
  comes_to_listen "$1"
}
hand_over() {
  if [ "$(agent_pid)" != "$old" ]; then
    say problem other
    return
  fi
  as_service=no
  if [ "$(service_pid)" = "$old" ]; then
    as_service=yes
  fi
  if [ "$back" = yes ]; then
    mv -f "$program.previous" "$program" || exit 1
  fi
  if restart "$old"; then
    say_agent "$(agent_pid)"
    return
  fi
  say problem start
  say_log
  if alive "$started"; then
    kill -KILL "$started"
  fi
  if [ "$back" = no ] && mv -f "$program.previous" "$program" && restart "$old"; then
    say rolled_back yes
    say_agent "$(agent_pid)"
  fi
}
hand_over
)sh";

}  // namespace

std::string look_script() { return std::string(kCommon) + kLook; }
std::string put_script() { return std::string(kCommon) + kPut; }
std::string start_script() { return std::string(kCommon) + kStart; }
std::string hand_over_script() { return std::string(kCommon) + kHandOver; }

}  // namespace cli

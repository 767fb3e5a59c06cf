#include "cli/remote_shell.h"

#include "cli/error.h"
#include "protocol/os/offload.h"
#include "protocol/os/run.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::string_view kMark = "@sandbox ";
constexpr const char* kEnd = "end";  // said last: the script came to its end
constexpr int kSshFailed = 255;
constexpr std::size_t kMostAnswer = 4 * 1024 * 1024;
constexpr std::size_t kShown = 600;

constexpr std::string_view kSay = R"(
set -u
umask 077
say() { printf '@sandbox %s %s\n' "$1" "$2"; }
say_lines() { while IFS= read -r line || [ -n "$line" ]; do say "$1" "$line"; done; }
echo  # after what a profile printed without an end of line
)";

std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
    text.pop_back();
  }
  auto begin = text.rfind('\n');
  return wire::printable(begin == std::string::npos ? text : text.substr(begin + 1), kShown);
}

}  // namespace

std::string RemoteAnswer::first(const std::string& word) const {
  auto found = said.find(word);
  return found == said.end() ? std::string() : found->second.front();
}

std::string RemoteAnswer::all(const std::string& word) const {
  std::string text;
  auto found = said.find(word);
  if (found != said.end()) {
    for (const auto& line : found->second) {
      text += (text.empty() ? "" : "; ") + line;
    }
  }
  return text;
}

std::vector<std::string> ssh_words(const std::string& ssh, const std::string& host,
                                   std::size_t script_bytes) {
  std::vector<std::string> words = {ssh.empty() ? "ssh" : ssh, "-T"};
  // Of the user's configuration what would get into the way of a script is put aside.
  for (const char* option :
       {"BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4",
        "RemoteCommand=none", "ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no"}) {
    words.insert(words.end(), {"-o", option});
  }
  // sh itself may read ahead on a pipe; dd takes no byte more than it is told, so that what follows
  // the script is still there for it.
  words.insert(words.end(), {"--", host,
                             "exec sh -c 'eval \"$(dd bs=1 count=" + std::to_string(script_bytes) +
                                 " 2>/dev/null)\"'"});
  return words;
}

std::string script_text(const RemoteScript& script) {
  std::string text(kSay);
  for (const auto& [name, value] : script.values) {
    text += name + "=" + (value.empty() ? "''" : wire::shell_quote(value)) + "\n";
  }
  return text + script.text + "\nsay " + kEnd + " yes\n";
}

RemoteAnswer parse_answer(std::string_view output) {
  RemoteAnswer answer;
  while (!output.empty()) {
    auto end = std::min(output.find('\n'), output.size());
    std::string_view line = output.substr(0, end);
    output.remove_prefix(std::min(end + 1, output.size()));
    if (!line.starts_with(kMark)) {
      continue;
    }
    line.remove_prefix(kMark.size());
    auto space = std::min(line.find(' '), line.size());
    std::string_view text = line.substr(std::min(space + 1, line.size()));
    answer.said[std::string(line.substr(0, space))].emplace_back(text);
  }
  return answer;
}

os::awaitable<RemoteAnswer> RemoteShell::run(RemoteScript script) {
  std::string text = script_text(script);
  os::Spawn spawn;
  spawn.argv = ssh_words(context_.environment.get("SANDBOX_SSH"), host_, text.size());
  context_.trace.event("ssh " + host_ + ": " + script.what);
  text += script.input;
  auto work = [spawn, text = std::move(text)] { return os::run(spawn, text, kMostAnswer); };
  auto ran = co_await os::offload(context_.pool, std::move(work));
  std::string try_it = "It has to work without a question: try `ssh -o BatchMode=yes " +
                       wire::shell_quote(host_) + " true`.";
  if (!ran && ran.error().code == wire::Errc::not_found) {
    throw UserError("box", "cannot reach " + host_ + ": there is no ssh to run",
                    "Install an OpenSSH client, or name one with SANDBOX_SSH.");
  }
  if (!ran) {
    throw UserError("box", "cannot run ssh: " + ran.error().what);
  }
  if (ran->exit.signal != 0 || ran->exit.status == kSshFailed) {
    std::string why = last_line(ran->err);
    throw UserError("box",
                    "ssh did not get to " + host_ + " to " + script.what +
                        (why.empty() ? std::string() : ": " + why),
                    try_it);
  }
  RemoteAnswer answer = parse_answer(ran->out);
  if (!answer.has(kEnd)) {
    std::string why = last_line(ran->err);
    throw UserError("box",
                    "could not " + script.what + " on " + host_ + ": " +
                        (why.empty() ? "its login does not run a shell script to the end" : why),
                    "An account with a POSIX shell and the usual tools (sh, dd, sed) is needed.");
  }
  co_return answer;
}

}  // namespace cli

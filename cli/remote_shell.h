// Scripts on another machine, run by the user's own ssh (SANDBOX_SSH, else `ssh`): ssh_config,
// ProxyJump, certificates and agents work because it is ssh. It never asks anything: a host where
// ssh would have to is an error.
//
// A script is fed on stdin, not named on the command line, so that it is the same whatever shell
// the account has. What it says for us are lines `@sandbox WORD TEXT` (`say WORD TEXT`); whatever
// else a profile prints is passed over.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/context.h"

namespace cli {

struct RemoteAnswer {
  std::map<std::string, std::vector<std::string>> said;  // by word, in order

  bool has(const std::string& word) const { return said.count(word) != 0; }
  std::string first(const std::string& word) const;  // empty when it was not said
  std::string all(const std::string& word) const;    // its lines, joined by "; "
};

struct RemoteScript {
  std::string what;  // it is good for, in errors: "look at it"
  std::string text;  // for /bin/sh
  std::vector<std::pair<std::string, std::string>> values = {};  // shell variables, set before
  std::string input = {};                                        // its stdin
};

class RemoteShell {
 public:
  // `host` as the user's ssh_config knows it.
  RemoteShell(Context& context, std::string host) : context_(context), host_(std::move(host)) {}

  const std::string& host() const { return host_; }
  // Throws UserError: no way to the host without asking, or a script that did not come to its end.
  protocol::os::awaitable<RemoteAnswer> run(RemoteScript script);

 private:
  Context& context_;
  std::string host_;
};

// The parts, pure. argv of ssh for a script of so many bytes, the script with its values, and what
// it said.
std::vector<std::string> ssh_words(const std::string& ssh, const std::string& host,
                                   std::size_t script_bytes);
std::string script_text(const RemoteScript& script);
RemoteAnswer parse_answer(std::string_view output);

}  // namespace cli

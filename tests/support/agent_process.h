// The real agent program in a process of its own, with a state directory of its own, and stock
// `ssh` to talk to it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/ssh/key.h"
#include "tests/support/agent_world.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

namespace test {

class AgentProcess {
 public:
  explicit AgentProcess(std::vector<std::string> more_options = {"--slots", "0"});
  ~AgentProcess();  // kills it, and what it started

  void start();  // until it listens
  void kill(int signal);
  // Its exit status, or 128 + the signal that ended it.
  int wait();

  SessionClient session(const std::string& user = "sandbox");
  // Runs stock ssh to its end.
  protocol::os::Output ssh(const std::string& command, const std::string& input = {},
                           const std::string& user = "sandbox",
                           std::vector<std::string> options = {});
  // Starts it and goes on; its stdout goes to this file.
  protocol::os::Process ssh_beside(const std::string& command, const std::filesystem::path& out,
                                   std::vector<std::string> options = {});
  std::vector<std::string> ssh_arguments(const std::string& user,
                                         std::vector<std::string> options) const;

  std::filesystem::path state() const { return directory_ / "state"; }
  std::filesystem::path sandbox(char digit) const {
    return state() / "sandboxes" / sandbox_id(digit);
  }
  std::filesystem::path scratch() const { return directory_.path(); }
  std::uint16_t port() const { return port_; }
  std::string log() const;  // what it wrote to stderr
  // Looks until this is true; throws after half a minute.
  void until(const std::function<bool()>& condition);

  Loop loop;

 private:
  TemporaryDirectory directory_;
  std::vector<std::string> options_;
  protocol::ssh::PrivateKey key_;
  std::optional<protocol::os::Process> process_;
  std::uint16_t port_ = 0;
};

std::string read_text(const std::filesystem::path& file);  // empty when there is none

}  // namespace test

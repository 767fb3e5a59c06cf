// A box of one test that several people use: the real agent with a state directory of its own, on
// the loopback. People are Machines (system.h), each with a key of their own.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "protocol/os/process.h"
#include "tests/support/system.h"

namespace test {

class SharedBox {
 public:
  // Listens when this returns.
  explicit SharedBox(std::string name, Words more_options = {"--slots", "1"},
                     std::map<std::string, std::string> environment = {});
  ~SharedBox();  // ends it, and what it started
  SharedBox(const SharedBox&) = delete;

  // Lets the machine's key in under this name.
  void authorize(Machine& machine, const std::string& user);
  // authorize, and `sandbox boxes add` there under the box's own name.
  void introduce(Machine& machine, const std::string& user);

  const std::string& name() const { return name_; }
  std::string address() const { return "127.0.0.1:" + port_; }  // the same after each start()
  std::string host_key() const;
  std::filesystem::path state() const { return root_ / "state"; }
  pid_t pid() const { return process_ ? process_->pid() : 0; }

  void end(int signal);  // and waits for its end
  void start();

 private:
  std::string name_;
  Words options_;
  std::map<std::string, std::string> environment_;
  std::filesystem::path root_;
  std::string port_ = "0";
  std::optional<protocol::os::Process> process_;
};

}  // namespace test

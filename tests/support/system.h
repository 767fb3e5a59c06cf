// A machine of one test: private home, state and configuration under a short directory, and the
// real programs run in it. Ends what it started, and nothing else; leaves its directory behind when
// the test failed.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/os/process.h"
#include "protocol/os/pty.h"

namespace test {

using Words = std::vector<std::string>;

// Looks again and again, without a fixed sleep, until it is true or too late.
bool eventually(const std::function<bool()>& what,
                std::chrono::milliseconds limit = std::chrono::seconds(20));

std::string file_text(const std::filesystem::path& file);
void write_text(const std::filesystem::path& file, const std::string& text);

struct Ended {
  int status = -1;  // as a shell tells it: 128+n for a signal
  std::string out;
  std::string err;  // with a terminal everything is in `out`
};

struct How {
  std::filesystem::path directory;  // empty: the machine's project
  std::string input;                // what stdin gives, then its end
  bool input_stays_open = false;    // stdin is a pipe that nobody ends
  bool null_input = false;          // stdin is /dev/null
  bool terminal = false;            // the three streams are a terminal of 30 rows, 100 columns
  std::map<std::string, std::string> environment;  // added to the machine's; an empty value removes
};

// A program that runs. Killed by the destructor, with its group.
class Running {
 public:
  Running(protocol::os::Process process, std::filesystem::path out, std::filesystem::path error,
          protocol::os::Fd input, std::optional<protocol::os::Pty> terminal);
  ~Running();
  Running(Running&&) = default;

  pid_t pid() const { return process_->pid(); }
  void signal(int number);             // to the program alone
  void type(const std::string& text);  // to its terminal or stdin
  void end_input() { input_.reset(); }
  void resize(protocol::os::WindowSize size);
  std::string out();  // so far
  std::string err();
  bool out_has(const std::string& text);
  bool err_has(const std::string& text);
  // Its end; status -1 when it does not come in time.
  Ended wait(std::chrono::seconds limit = std::chrono::seconds(60));

 private:
  void drain();
  std::unique_ptr<protocol::os::Process> process_;
  std::filesystem::path out_, error_;
  protocol::os::Fd input_;
  std::optional<protocol::os::Pty> terminal_;
  std::string typed_back_;
  bool reaped_ = false;
};

class Machine {
 public:
  Machine();
  ~Machine();
  Machine(const Machine&) = delete;

  std::filesystem::path home() const { return root_ / "home"; }
  std::filesystem::path state() const { return root_ / "state/sandbox"; }
  std::filesystem::path config() const { return root_ / "config/sandbox"; }
  std::filesystem::path project() const { return root_ / "p"; }
  std::filesystem::path root() const { return root_; }

  // The CLI with these arguments.
  Running start(const Words& arguments, const How& how = {});
  Ended run(const Words& arguments, const How& how = {});
  // `sandbox exec -- sh -c SCRIPT`
  Ended exec(const std::string& script, const How& how = {});
  // Any program.
  Running start_program(const Words& argv, const How& how = {});
  Ended run_program(const Words& argv, const How& how = {});
  // A git repository with one commit of the file `f`, at project().
  void make_repository();
  Ended git(const Words& arguments);

  // From agent.json; 0 when no agent says that it runs.
  pid_t agent_pid() const;
  std::map<std::string, std::string> environment;

 private:
  std::filesystem::path root_;
  int files_ = 0;
};

// The first sandbox's id in `list --json`'s output, and how many there are.
std::size_t sandbox_count(const std::string& list_json);

}  // namespace test

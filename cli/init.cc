// sandbox init: writes a commented configuration file, and never over another.
#include <fcntl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>

#include "cli/command_runs.h"
#include "cli/config.h"
#include "cli/context.h"
#include "cli/project.h"
#include "protocol/os/fd.h"

namespace cli {

namespace {

// Returns false when the file is there already.
bool write_new(const std::filesystem::path& file, const std::string& text) {
  protocol::os::Fd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!fd && errno == EEXIST) {
    return false;
  }
  if (!fd) {
    throw UserError("config",
                    "cannot write " + protocol::os::errno_failure(errno, file.string()).what);
  }
  if (auto written = protocol::os::write_all(fd.get(), text); !written) {
    ::unlink(file.c_str());
    throw UserError("config", "cannot write " + file.string() + ": " + written.error().what,
                    "Make that directory, or make it writable; or name another file.");
  }
  return true;
}

}  // namespace

protocol::os::awaitable<int> run_init(Context& context) {
  Project project = find_project(context.environment, context.arguments.value("dir").value_or(""));
  std::filesystem::path file = project.root / kConfigName;
  if (!context.arguments.positional.empty()) {
    file = project.directory / context.arguments.positional.front();
  }
  bool created = write_new(file, config_template());
  Output& output = context.output;
  if (output.json()) {
    boost::json::object answer;
    answer["ConfigFile"] = json_text(file.string());
    answer["Created"] = created;
    output.json_line(answer);
  } else if (created) {
    output.line("Created sandbox configuration: " + file.string());
  } else {
    output.note("sandbox: " + file.string() + " is there already and was left as it is");
  }
  co_return 0;
}

}  // namespace cli

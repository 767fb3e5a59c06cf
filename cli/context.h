// What a command is given. Lives as long as the program.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <functional>

#include "cli/arguments.h"
#include "cli/environment.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "cli/trace.h"
#include "protocol/os/async.h"

namespace cli {

struct Context {
  const Environment& environment;
  const Paths& paths;
  const Arguments& arguments;
  Output& output;
  Trace& trace;
  Signals& signals;
  protocol::os::executor executor;
  boost::asio::thread_pool& pool;
  // Ends the program now, with this error: for signals. What runs on pool threads is left where it
  // is.
  std::function<void(const UserError&)> give_up;
  std::string verb;  // the command's name: exec, push ...
};

}  // namespace cli

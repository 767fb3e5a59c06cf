// sandbox key: the public key that boxes know this user by.
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/context.h"

namespace cli {

protocol::os::awaitable<int> run_key(Context& context) {
  protocol::ssh::PublicKey key = own_key(context).public_key();
  std::string line = key.text() + " " + user_name(context.environment);
  if (context.output.json()) {
    boost::json::object answer;
    answer["PublicKey"] = json_text(line);
    answer["Fingerprint"] = key.fingerprint();
    answer["File"] = json_text(context.paths.key().string() + ".pub");
    context.output.json_line(answer);
  } else {
    context.output.line(line);
  }
  co_return 0;
}

}  // namespace cli

// sandbox ssh-config: a Host block with which stock ssh reaches this project's sandbox.
#include <boost/json.hpp>
#include <cctype>

#include "cli/command_runs.h"
#include "cli/existing.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace cli {

namespace {

// A word for a Host line or a file name.
std::string plain(const std::string& text) {
  std::string out;
  for (char c : text) {
    bool keep =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
    out += keep ? c : '-';
  }
  return out;
}

// ssh reads `%` and quotes in a path as its own.
std::string quoted_path(const std::string& path) {
  std::string out;
  for (char c : path) {
    if (c == '"' || c == '\n') {
      throw UserError("box", "ssh cannot be told of the path " + path,
                      "Set XDG_CONFIG_HOME to one without quotes.");
    }
    out += c == '%' ? "%%" : std::string(1, c);
  }
  return "\"" + out + "\"";
}

}  // namespace

protocol::os::awaitable<int> run_ssh_config(Context& context) {
  Target target = find_target(context);
  Entry entry = co_await existing_entry(context, target, false);
  auto connection = co_await connect(context, entry.key.box);
  const Box& box = connection->box();
  if (!box.via_ssh.empty()) {
    throw UserError(
        "box",
        "the box " + box.name + " is reached through its own sshd (" + box.place() +
            "): its agent has no port that ssh could use",
        "`ssh " + protocol::wire::shell_quote(box.via_ssh) + "` reaches the box itself.");
  }

  if (box.name == kLocalBox) {
    context.output.note(
        "sandbox: the local box's agent ends when nobody uses it; `sandbox start` starts it again, "
        "on this port unless another program has taken it");
  }
  std::string alias = "sandbox-box-" + plain(box.name);
  std::filesystem::path known_hosts = context.paths.config / "known_hosts" / plain(box.name);
  auto written = protocol::os::make_private_directory(known_hosts.parent_path());
  if (written) {
    written = protocol::os::write_file(known_hosts, alias + " " + box.host_key + "\n");
  }
  if (!written) {
    throw UserError("box", "cannot write " + written.error().what);
  }
  std::string host = context.arguments.value("host").value_or("");
  if (host.empty()) {
    host = "sandbox-" + plain(std::filesystem::path(entry.key.project).filename().string()) +
           (entry.key.branch.empty() ? "" : "-" + plain(entry.key.branch));
  } else if (host != plain(host)) {
    throw UserError("arguments", "--host takes letters, digits and .-_ , not `" + host + "`", {},
                    kMisuse);
  }
  std::string text = "Host " + host + "\n" +                                //
                     "  HostName " + box.address.host + "\n" +              //
                     "  Port " + std::to_string(box.address.port) + "\n" +  //
                     "  User " + entry.id + "\n" +                          //
                     "  IdentityFile " + quoted_path(context.paths.key().string()) + "\n" +
                     "  IdentitiesOnly yes\n" +          //
                     "  HostKeyAlias " + alias + "\n" +  //
                     "  UserKnownHostsFile " + quoted_path(known_hosts.string()) + "\n" +
                     "  StrictHostKeyChecking yes";
  if (context.output.json()) {
    boost::json::object answer;
    answer["RunID"] = entry.id;
    answer["Host"] = host;
    answer["HostName"] = json_text(box.address.host);
    answer["Port"] = box.address.port;
    answer["User"] = entry.id;
    answer["IdentityFile"] = json_text(context.paths.key().string());
    answer["UserKnownHostsFile"] = json_text(known_hosts.string());
    answer["Config"] = json_text(text + "\n");
    context.output.json_line(answer);
  } else {
    context.output.line(text);
  }
  co_return 0;
}

}  // namespace cli

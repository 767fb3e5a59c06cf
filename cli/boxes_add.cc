// sandbox boxes add, edit: what is known of a box, checked with the box itself before it is written
// down. They never ask anything: whoever runs them sees the host key and judges it.
#include <boost/json.hpp>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/context.h"
#include "cli/job_records.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace ssh = protocol::ssh;
namespace wire = protocol::wire;

namespace {

UserError misuse(const std::string& message, const std::string& next = {}) {
  return UserError("arguments", message, next, kMisuse);
}

std::string required_name(const Arguments& arguments, const char* option) {
  auto name = arguments.value(option);
  if (!name) {
    throw misuse("--" + std::string(option) + " NAME is missing");
  }
  return *name;
}

UserError name_taken(const Box& known) {
  return misuse("there is a box " + known.name + " already, at " + wire::printable(known.place()),
                "Choose another name, or change that one with `sandbox boxes edit --name " +
                    known.name + "`. Nothing was changed.");
}

// Lays --host, --via-ssh, --agent and --state over what is known. Returns whether the box is
// another one, or the same one elsewhere.
bool set_place(const Arguments& arguments, Box& box) {
  auto host = arguments.value("host");
  auto via_ssh = arguments.value("via-ssh");
  auto agent = arguments.value("agent");
  auto state = arguments.value("state");
  if (host && via_ssh) {
    throw misuse("--host and --via-ssh exclude each other");
  }
  if (host) {
    auto address = parse_host(*host);
    if (!address) {
      throw misuse("--host takes HOST, HOST:PORT or [IPV6]:PORT, not `" +
                   wire::printable(*host, 200) + "`");
    }
    box.address = *address;
    box.via_ssh.clear();
    box.agent.clear();
    box.state.clear();
  }
  if (via_ssh) {
    Box probe;
    probe.name = "probe";
    probe.via_ssh = *via_ssh;
    if (via_ssh->empty() || !decode_boxes(encode_boxes({probe}))) {
      throw misuse("--via-ssh takes a host as ssh knows it, not `" +
                   wire::printable(*via_ssh, 200) + "`");
    }
    box.via_ssh = *via_ssh;
    box.address = {};
    box.host_key.clear();
  }
  if ((agent || state) && box.via_ssh.empty()) {
    throw misuse(
        "--agent and --state go with --via-ssh: elsewhere the agent's port is all it takes");
  }
  box.agent = agent.value_or(box.agent);
  box.state = state.value_or(box.state);
  return host || via_ssh || agent || state;
}

// What --host-key says: a key line or a fingerprint. Empty: it says nothing.
std::string wanted_key(const Arguments& arguments, const Box& box) {
  auto text = arguments.value("host-key");
  if (!text) {
    return {};
  }
  if (!box.via_ssh.empty()) {
    throw misuse("--host-key does not go with a box that is reached by ssh",
                 "There ssh itself checks the host's key.");
  }
  if (text->rfind("SHA256:", 0) == 0 && text->size() > 7) {
    return *text;
  }
  auto second = text->find(' ');
  auto end = second == std::string::npos ? second : text->find(' ', second + 1);  // of a comment
  auto key = ssh::PublicKey::parse(text->substr(0, end));
  if (!key) {
    throw misuse("--host-key takes `ssh-ed25519 AAAA...` or `SHA256:...`, not `" +
                 wire::printable(*text, 200) + "`");
  }
  return key->text();
}

// Connects, and returns the box with the host key that it has.
os::awaitable<Box> checked(Context& context, Box box, std::string wanted) {
  bool by_key = wanted.rfind("SHA256:", 0) != 0;
  if (!wanted.empty()) {
    box.host_key = by_key ? wanted : std::string();
  }
  auto connection = co_await contact(context, box);
  std::string seen = connection->box().host_key;
  if (!by_key && fingerprint(seen) != wanted) {
    throw UserError("box",
                    "the box " + box.name + " at " + box.address.text() +
                        " has another host key than --host-key says: " + fingerprint(seen),
                    "Ask there for its key. Nothing was changed.");
  }
  box.host_key = seen;
  co_return box;
}

void say(Context& context, const std::string& what, const Box& box) {
  Output& output = context.output;
  if (output.json()) {
    json::object answer;
    answer["Name"] = box.name;
    answer["Address"] = box.via_ssh.empty() ? box.address.text() : std::string();
    answer["ViaSSH"] = json_text(box.via_ssh);
    answer["HostKey"] = box.host_key;
    answer["Fingerprint"] = fingerprint(box.host_key);
    output.json_line(answer);
    return;
  }
  output.line(what + " box " + box.name + ": " + box.place());
  if (!box.host_key.empty()) {
    output.line("Host key: " + fingerprint(box.host_key));
    output.line(box.host_key);
  }
}

// Sandboxes and jobs on record go with their box's name.
os::awaitable<void> rename_on_record(Context& context, std::string from, std::string to) {
  Resolver resolver = make_resolver(context);
  auto storage = co_await resolver.lock();
  bool changed = false;
  for (auto& entry : storage->entries()) {
    if (entry.key.box == from) {
      entry.key.box = to;
      changed = true;
    }
  }
  if (changed) {
    storage->save();
  }
  for (JobRecord& job : remembered_jobs(context.paths, "", context.output)) {
    if (job.box == from) {
      job.box = to;
      remember_job(context.paths, job);
    }
  }
}

}  // namespace

os::awaitable<int> run_boxes_add(Context& context) {
  Box box;
  box.name = required_name(context.arguments, "name");
  check_box_name(box.name);
  if (!set_place(context.arguments, box) || (box.address.host.empty() && box.via_ssh.empty())) {
    throw misuse("where is the box? --host HOST[:PORT] or --via-ssh HOST is missing");
  }
  std::string wanted = wanted_key(context.arguments, box);
  auto boxes = read_boxes(context.paths);
  if (const Box* known = find_name(boxes, box.name); known != nullptr) {
    throw name_taken(*known);
  }
  box = co_await checked(context, box, wanted);
  change_boxes(context.paths, [&box](std::vector<Box>& all) {
    if (const Box* known = find_name(all, box.name); known != nullptr) {
      throw name_taken(*known);
    }
    all.push_back(box);
  });
  say(context, "Added", box);
  co_return 0;
}

os::awaitable<int> run_boxes_edit(Context& context) {
  const Arguments& arguments = context.arguments;
  std::string name = required_name(arguments, "name");
  auto new_name = arguments.value("new-name");
  auto boxes = read_boxes(context.paths);
  if (find_name(boxes, name) == nullptr) {
    if (name == kLocalBox) {
      throw misuse("the box `local` is built in and cannot be changed");
    }
    find_box(context.paths, name);
    throw misuse("the box " + name + " is not on record", "`sandbox boxes add` adds it.");
  }
  Box box = *find_name(boxes, name);
  const Box before = box;
  bool moved = set_place(arguments, box);
  std::string wanted = wanted_key(arguments, box);
  if (!moved && wanted.empty() && !new_name) {
    throw misuse(
        "nothing to change was given: --host, --host-key, --via-ssh, --agent, --state or "
        "--new-name");
  }
  if (new_name && *new_name != name) {
    check_box_name(*new_name);
    if (const Box* known = find_name(boxes, *new_name); known != nullptr) {
      throw name_taken(*known);
    }
    box.name = *new_name;
  }
  if (moved || !wanted.empty()) {
    box = co_await checked(context, box, wanted);
  }
  change_boxes(context.paths, [&](std::vector<Box>& all) {
    Box* known = find_name(all, name);
    if (known == nullptr || known->place() != before.place() ||
        known->host_key != before.host_key) {
      throw UserError("box", "the box " + name + " was changed by another process meanwhile",
                      "Look at `sandbox boxes` and try again. Nothing was changed.");
    }
    if (box.name != name && find_name(all, box.name) != nullptr) {
      throw name_taken(*find_name(all, box.name));
    }
    *known = box;
  });
  if (box.name != name) {
    co_await rename_on_record(context, name, box.name);
  }
  say(context, "Changed", box);
  co_return 0;
}

}  // namespace cli

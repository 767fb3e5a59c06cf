// sandbox boxes install: from a machine that has nothing but its sshd to a box on record. What is
// there already is left as it is, so that it can be run again, and goes on where it was cut off.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/context.h"
#include "cli/install_host.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr const char* kLoopback = "127.0.0.1:0";
constexpr const char* kSlots = "1";

UserError misuse(const std::string& message, const std::string& next = {}) {
  return UserError("arguments", message, next, kMisuse);
}

struct Wanted {
  std::string name;
  std::string host;
  std::optional<Address> listen;
  std::string slots;  // empty: not said
};

bool is_number(const std::string& text, std::uint32_t most) {
  std::uint32_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value <= most;
}

Wanted read_arguments(const Arguments& arguments) {
  Wanted wanted;
  if (arguments.positional.empty()) {
    throw misuse("which box is to be installed? Its NAME is missing",
                 "Usage: sandbox boxes install NAME [--host SSH_HOST]");
  }
  wanted.name = arguments.positional.front();
  check_box_name(wanted.name);
  wanted.host = arguments.value("host").value_or(wanted.name);
  Box probe;
  probe.name = "probe";
  probe.via_ssh = wanted.host;
  if (probe.via_ssh.empty() || !decode_boxes(encode_boxes({probe}))) {
    throw misuse("--host takes a host as ssh knows it, not `" + wire::printable(wanted.host, 200) +
                 "`");
  }
  wanted.slots = arguments.value("slots").value_or("");
  if (arguments.has("slots") && !is_number(wanted.slots, 65535)) {
    throw misuse("--slots takes a number from 0 (no limit) to 65535, not `" +
                 wire::printable(wanted.slots, 80) + "`");
  }
  if (auto text = arguments.value("listen")) {
    wanted.listen = parse_host(*text);
    if (!wanted.listen) {
      throw misuse("--listen takes HOST, HOST:PORT or [IPV6]:PORT, not `" +
                   wire::printable(*text, 200) + "`");
    }
  }
  return wanted;
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}
bool is_any(const std::string& host) { return host == "0.0.0.0" || host == "::"; }

// The options that the agent there has, or gets.
ServiceOptions service_options(const Wanted& wanted, const HostFacts& facts) {
  ServiceOptions options = facts.serving.value_or(ServiceOptions{wanted.name, kLoopback, kSlots});
  const ServiceOptions before = options;
  if (wanted.listen) {
    options.listen = wanted.listen->text();
  }
  if (!wanted.slots.empty()) {
    options.slots = wanted.slots;
  }
  if (facts.agent && facts.serving && options != before) {
    throw UserError("agent",
                    "the agent on " + wanted.host + " runs with --listen " + before.listen +
                        " --slots " + before.slots,
                    "To have it otherwise, end it there when nobody uses it (" +
                        (facts.service ? std::string("systemctl --user stop sandbox-agent")
                                       : "kill " + std::to_string(facts.agent->pid)) +
                        "), then install again. Nothing was changed.");
  }
  return options;
}

// An entry of that name has to be the box that is being installed.
void check_known(const Box& known, const Wanted& wanted, const HostFacts& facts) {
  auto host = installed_host(known);
  bool same_host = known.via_ssh == wanted.host || (host && *host == wanted.host);
  bool same_key = !known.host_key.empty() && facts.agent && known.host_key == facts.agent->host_key;
  bool other_key =
      !known.host_key.empty() && facts.agent && known.host_key != facts.agent->host_key;
  if ((same_host || same_key) && !other_key) {
    return;
  }
  throw misuse("there is a box " + known.name + " already, at " + wire::printable(known.place()) +
                   ", and it is " + (other_key ? "not the one that runs on " : "not known to be ") +
                   wanted.host,
               "Choose another name, or forget that one with `sandbox boxes delete --name " +
                   known.name + " --yes`. Nothing was changed.");
}

// How clients get to it: what is known stays, else the agent's own port where it has one that
// others can reach, or was told to have; else through sshd.
os::awaitable<Box> make_box(const Wanted& wanted, const Box* known, const HostFacts& facts,
                            ServiceOptions options, AgentAddress agent, InstallHost& host) {
  Box box;
  if (known != nullptr) {
    box = *known;
  }
  box.name = wanted.name;
  set_installed_host(box, wanted.host);
  auto listens = parse_address(options.listen);
  bool known_direct = known != nullptr && known->via_ssh.empty();
  if (wanted.listen || known_direct || (listens && !is_loopback(listens->host))) {
    if (!known_direct || wanted.listen) {
      box.address = listens.value_or(agent.address);
      box.address.port = agent.address.port;
    }
    if (is_any(box.address.host)) {
      box.address.host = co_await host.address();
    }
    box.via_ssh.clear();
    box.agent.clear();
    box.state.clear();
    box.host_key = agent.host_key;
  } else {
    box.address = {};
    box.host_key.clear();
    box.via_ssh = wanted.host;
    box.agent = facts.program;
    box.state = facts.state;
  }
  co_return box;
}

// Returns whether something was written down.
bool register_box(const Paths& paths, const Box& box, const std::optional<Box>& before) {
  bool changed = true;
  change_boxes(paths, [&](std::vector<Box>& all) {
    Box* known = find_name(all, box.name);
    bool same = known == nullptr ? !before
                                 : before && known->place() == before->place() &&
                                       known->host_key == before->host_key;
    if (!same) {
      throw UserError("box", "the box " + box.name + " was changed by another process meanwhile",
                      "Look at `sandbox boxes` and try again. No entry was changed.");
    }
    if (known == nullptr) {
      all.push_back(box);
      return;
    }
    changed = encode_boxes({*known}) != encode_boxes({box});
    *known = box;
  });
  return changed;
}

struct Done {
  bool put = false;
  InstallHost::Started started;
  bool was_running = false;
  bool other_build = false;  // than ours runs there
  wire::Info info;
  Box box;
  bool registered = false;
  bool changed = false;
};

void say(Context& context, const Wanted& wanted, const HostFacts& facts, const Done& done) {
  Output& output = context.output;
  auto key = protocol::ssh::PublicKey::parse(done.started.agent.host_key);
  std::string fingerprint = key ? key->fingerprint() : std::string();
  if (output.json()) {
    json::object answer;
    answer["Name"] = done.box.name;
    answer["Address"] = done.box.via_ssh.empty() ? done.box.address.text() : std::string();
    answer["ViaSSH"] = json_text(done.box.via_ssh);
    answer["Host"] = json_text(wanted.host);
    answer["HostKey"] = done.started.agent.host_key;
    answer["Fingerprint"] = fingerprint;
    answer["Agent"] = done.info.agent;
    answer["Version"] = json_text(done.info.version);
    answer["Program"] = json_text(facts.program);
    answer["State"] = json_text(facts.state);
    answer["Installed"] = done.put;
    answer["Started"] = !done.was_running;
    answer["Service"] = done.started.service;
    answer["Added"] = done.registered;
    output.json_line(answer);
    return;
  }
  std::string host = wanted.host;
  if (done.put) {
    output.line("Installed sandbox-agent " SANDBOX_VERSION " on " + host + ": " + facts.program);
  } else {
    output.line("There is sandbox-agent " + done.info.version + " on " + host +
                " already: nothing was replaced");
  }
  std::string how = done.started.service ? "as a service" : "as a daemon";
  output.line((done.was_running ? "It runs " : "Started it ") + how + ", its state is " +
              facts.state);
  if (done.started.key_added) {
    output.line("Your key is let in as " + user_name(context.environment));
  }
  output.line((done.registered ? "Added box "
               : done.changed  ? "Changed box "
                               : "Known already: box ") +
              done.box.name + ": " + done.box.place());
  output.line("Host key: " + fingerprint);
  output.line(done.started.agent.host_key);
  if (!done.started.service) {
    output.note(
        "sandbox: after a restart of " + host + ", `sandbox boxes install " + done.box.name +
        (host == done.box.name ? "" : " --host " + wire::shell_quote(host)) + "` starts it again");
  }
  if (done.started.no_linger) {
    output.note(
        "sandbox: it would be a service if that outlived a login; for that, an administrator runs "
        "there: loginctl enable-linger USER");
  }
  if (done.other_build) {
    output.note("sandbox: it is another build than the sandbox-agent here; `sandbox update --box " +
                done.box.name + "` replaces it");
  }
}

// What an error has to say after something was put there.
UserError with_what_is_left(const UserError& error, const Wanted& wanted, const HostFacts& facts) {
  std::string next = error.next + (error.next.empty() ? "" : " ");
  return UserError(error.origin, error.what(),
                   next + "The box was not added. Left on " + wanted.host + ": " + facts.program +
                       " and " + facts.state +
                       "; another `sandbox boxes install` goes on from there.",
                   error.status);
}

}  // namespace

os::awaitable<int> run_boxes_install(Context& context) {
  Wanted wanted = read_arguments(context.arguments);
  auto boxes = read_boxes(context.paths);
  std::optional<Box> known;
  if (const Box* found = find_name(boxes, wanted.name); found != nullptr) {
    known = *found;
  }
  protocol::ssh::PrivateKey key = own_key(context);
  std::string user = user_name(context.environment);
  std::string line = key.public_key().text() + " " + user;
  AgentProgram program = co_await read_agent_program(context);
  std::string sum = program.sum;

  InstallHost host(context, wanted.host);
  HostFacts facts = co_await host.look();
  if (known) {
    check_known(*known, wanted, facts);
  }
  ServiceOptions options = service_options(wanted, facts);
  Done done;
  done.was_running = facts.agent.has_value();
  done.other_build = facts.agent && facts.running != sum;
  // One that runs but was not installed needs ours beside it: to let keys in, and as a bridge.
  if (facts.sum.empty() || (!facts.agent && facts.sum != sum)) {
    co_await host.put(std::move(program), facts);
    done.put = true;
  }
  std::optional<UserError> failed;
  try {
    done.started = co_await host.start(facts, user, line, options);
    done.box = co_await make_box(wanted, known ? &*known : nullptr, facts, options,
                                 done.started.agent, host);
    done.info = co_await ask_info(context, done.box);
    if (done.info.agent != done.started.agent.agent) {
      throw UserError("box", "another agent answers at " + done.box.place(),
                      "Is that address another machine's?");
    }
    done.changed = register_box(context.paths, done.box, known);
    done.registered = !known;
  } catch (const UserError& error) {
    failed = error;
  }
  if (failed) {
    throw with_what_is_left(*failed, wanted, facts);
  }
  say(context, wanted, facts, done);
  co_return 0;
}

}  // namespace cli

#include "cli/install_host.h"

#include <sys/utsname.h>

#include <boost/json.hpp>

#include "cli/box_question.h"
#include "cli/connection.h"
#include "cli/digest.h"
#include "cli/error.h"
#include "cli/install_needs.h"
#include "cli/install_scripts.h"
#include "protocol/os/offload.h"
#include "protocol/os/paths.h"
#include "protocol/os/run.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::size_t kMostProgram = 1024 * 1024 * 1024;
constexpr const char* kInstalled = "installed";  // the member of a box's entry
constexpr std::size_t kShown = 600;

std::string this_machine() {
  utsname name{};
  return ::uname(&name) == 0 ? name.machine : "";
}

std::string shown(const std::string& text) { return wire::printable(text, kShown); }

// The agent that an answer names.
AgentAddress announced(const RemoteAnswer& answer, const std::string& host) {
  auto agent = parse_agent_address(answer.first("agent"));
  if (!agent) {
    throw UserError("agent", "the agent on " + host + " does not say where it listens",
                    "Its log is agent.log in its state directory there.");
  }
  return *agent;
}

UserError lacking(const std::string& host, const HostFacts& facts, const Needs& needs,
                  const std::string& why) {
  std::vector<std::string> things = needs.libraries;
  std::string packages;
  for (const auto& library : needs.libraries) {
    packages += " " + package_of(library);
  }
  if (!git_will_do(facts.git)) {
    things.emplace_back(facts.git.empty() ? "git" : "git 2.39 or later");
    packages += " git";
  }
  for (const auto& version : needs.versions) {
    things.push_back(version);
  }
  std::string list;
  for (const auto& thing : things) {
    list += (list.empty() ? "" : ", ") + shown(thing);
  }
  std::string next;
  if (!packages.empty()) {
    next = "Install there, as root: apt-get install" + shown(packages) +
           " (named as Debian does). Where these are not to be had, ";
  }
  next += next.empty() ? "Build" : "build";
  next += " sandbox on a machine like that one and run install from there. Nothing was changed.";
  std::string os = facts.os.empty() ? "" : " (" + shown(facts.os) + ")";
  return UserError("box",
                   "sandbox-agent cannot run on " + host + os + ": " +
                       (list.empty() ? shown(why) : "it lacks " + list),
                   next);
}

}  // namespace

os::awaitable<AgentProgram> read_agent_program(Context& context) {
  auto file = find_agent_program(context.environment);
  auto work = [file]() -> wire::result<AgentProgram> {
    auto bytes = os::read_file(file, kMostProgram);
    if (!bytes) {
      return bytes.error();
    }
    AgentProgram program;
    program.sum = digest(*bytes);
    program.bytes = std::move(*bytes);
    return program;
  };
  auto read = co_await os::offload(context.pool, work);
  if (!read) {
    throw UserError("agent", "cannot read " + file.string() + ": " + read.error().what);
  }
  co_return std::move(*read);
}

InstallHost::InstallHost(Context& context, std::string host)
    : context_(context), shell_(context, std::move(host)) {}

os::awaitable<HostFacts> InstallHost::look() {
  RemoteScript script{"look at it", look_script()};
  RemoteAnswer answer = co_await shell_.run(std::move(script));
  HostFacts facts;
  facts.system = answer.first("system");
  facts.machine = answer.first("machine");
  facts.os = answer.first("os");
  facts.git = answer.first("git");
  facts.program = answer.first("program");
  facts.state = answer.first("state");
  facts.sum = answer.first("sum");
  facts.running = answer.first("running");
  facts.service = answer.has("service");
  if (auto serve = answer.said.find("serve"); serve != answer.said.end()) {
    std::string text;
    for (const auto& line : serve->second) {
      text += line + "\n";
    }
    facts.serving = parse_serve_script(text);
  }
  if (answer.has("agent")) {
    facts.agent = announced(answer, host());
  }
  if (facts.system != "Linux") {
    throw UserError("box", host() + " runs " + shown(facts.system) + ": an agent needs Linux",
                    "Nothing was changed.");
  }
  if (facts.machine != this_machine()) {
    throw UserError("box",
                    host() + " is " + shown(facts.machine) +
                        ", and the sandbox-agent here is for " + this_machine(),
                    "Build sandbox on a machine like that one and run install from there. Nothing "
                    "was changed.");
  }
  co_return facts;
}

os::awaitable<void> InstallHost::put(AgentProgram program, HostFacts facts) {
  bool git = git_will_do(facts.git);
  RemoteScript script{"copy the agent", put_script()};
  script.values = {{"sum", program.sum}, {"place", git ? "yes" : "no"}};
  script.input = std::move(program.bytes);
  RemoteAnswer answer = co_await shell_.run(std::move(script));
  if (answer.first("problem") == "transfer") {
    std::string why = shown(answer.all("why"));
    throw UserError("box",
                    "the agent's program did not arrive whole on " + host() +
                        (why.empty() ? std::string() : ": " + why),
                    "Is the disk there full? Nothing was changed; try again.");
  }
  if (answer.first("problem") == "place") {
    throw UserError(
        "box", "cannot write the agent's program on " + host() + ": " + shown(answer.all("why")),
        "Its place is " + facts.program +
            ", below the home directory there. No agent was changed.");
  }
  if (answer.has("problem") || !git) {
    auto needs = answer.said.find("needs");
    throw lacking(
        host(), facts,
        parse_needs(needs == answer.said.end() ? std::vector<std::string>() : needs->second),
        answer.all("why"));
  }
}

os::awaitable<InstallHost::Started> InstallHost::start(HostFacts facts, std::string user,
                                                       std::string key, ServiceOptions options) {
  RemoteScript script{"start the agent", start_script()};
  script.values = {{"user", user},
                   {"key", key},
                   {"serve", serve_script(facts.program, facts.state, options)},
                   {"unit", unit_file(facts.state + "/serve", options)}};
  RemoteAnswer answer = co_await shell_.run(std::move(script));
  if (answer.has("problem")) {
    bool authorize = answer.first("problem") == "authorize";
    throw UserError("agent",
                    (authorize ? "the agent on " + host() + " does not take your key: "
                               : "the agent does not start on " + host() + ": ") +
                        shown(answer.all("why")),
                    "Its log there is " + facts.state + "/agent.log.");
  }
  Started started;
  started.agent = announced(answer, host());
  started.key_added = answer.first("authorized").ends_with("added");
  started.service = answer.has("service");
  started.no_linger = answer.has("no_linger");
  co_return started;
}

os::awaitable<HandedOver> InstallHost::hand_over(int old, bool back) {
  RemoteScript script{"restart the agent", hand_over_script()};
  script.values = {{"old", std::to_string(old)}, {"back", back ? "yes" : "no"}};
  RemoteAnswer answer = co_await shell_.run(std::move(script));
  if (answer.first("problem") == "other") {
    throw UserError("agent",
                    "another agent runs on " + host() + " than a moment ago: it was restarted",
                    "Nothing was restarted now; try again.");
  }
  if (!answer.has("agent")) {
    throw UserError("agent",
                    "no agent runs on " + host() + " any more: " + shown(answer.all("why")),
                    "Its log is agent.log in its state directory there; `sandbox boxes install` "
                    "starts it again.");
  }
  HandedOver done;
  done.agent = announced(answer, host());
  done.why = answer.has("problem") ? "it does not listen: " + shown(answer.all("why")) : "";
  co_return done;
}

os::awaitable<std::string> InstallHost::address() {
  os::Spawn spawn;
  std::string ssh = context_.environment.get("SANDBOX_SSH");
  spawn.argv = {ssh.empty() ? "ssh" : ssh, "-G", "--", host()};
  auto work = [spawn] { return os::run(spawn); };
  auto ran = co_await os::offload(context_.pool, work);
  std::string front = "\nhostname ";
  auto begin = ran && ran->exit.ok() ? ("\n" + ran->out).find(front) : std::string::npos;
  if (begin == std::string::npos) {
    throw UserError("box", "ssh does not say which address " + host() + " has",
                    "Name it: --listen ADDRESS:PORT.");
  }
  std::string rest = ("\n" + ran->out).substr(begin + front.size());
  co_return rest.substr(0, rest.find('\n'));
}

os::awaitable<wire::Info> ask_info(Context& context, Box box) {
  auto connection = co_await contact(context, box);
  wire::InfoRequest question;
  wire::Message answer = co_await ask_box(context, *connection, question);
  const auto* info = std::get_if<wire::Info>(&answer);
  if (info == nullptr) {
    throw no_answer(box.name, answer);
  }
  wire::Info found = *info;
  co_return found;
}

std::optional<std::string> installed_host(const Box& box) {
  const json::value* value = box.more.if_contains(kInstalled);
  const json::object* object = value == nullptr ? nullptr : value->if_object();
  const json::value* host = object == nullptr ? nullptr : object->if_contains("host");
  if (host == nullptr || !host->is_string() || host->get_string().empty()) {
    return std::nullopt;
  }
  return std::string(host->get_string());
}

void set_installed_host(Box& box, const std::string& host) {
  json::object object;
  object["host"] = host;
  box.more[kInstalled] = std::move(object);
}

}  // namespace cli

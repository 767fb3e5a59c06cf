#include "cli/survey.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <set>

#include "cli/ask_all.h"
#include "cli/boxes.h"
#include "cli/resolve.h"
#include "cli/session_locks.h"
#include "cli/target.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::minutes kWithoutHaste{
    1};  // to start an agent; to ask the user for a passphrase
constexpr std::chrono::seconds kMeasureTime{30};

// How a box is reached.
enum class Way { local, local_if_running, named, among_others };

// What the box measures takes as long as there are files, and nothing depends on it: false when it
// did not come in time.
os::awaitable<bool> add_sizes(SessionClient& client, BoxSurvey& survey, wire::ListRequest list) {
  auto deadline = std::chrono::steady_clock::now() + kMeasureTime;
  client.session().send(0, list);
  std::map<std::string, std::int64_t> sizes;
  for (bool answered = false; !answered;) {
    auto incoming = co_await client.session().next_until(deadline);
    if (!incoming) {
      co_return false;
    }
    if (const auto* sandboxes = std::get_if<wire::Sandboxes>(&incoming->message)) {
      for (const auto& one : sandboxes->sandboxes) {
        sizes[one.sandbox] = one.size_bytes;
      }
      answered = true;
    }
    answered = answered || std::holds_alternative<wire::Failed>(incoming->message);
  }
  for (auto& sandbox : survey.sandboxes) {
    auto size = sizes.find(sandbox.id);
    sandbox.size_bytes = size == sizes.end() ? -1 : size->second;
  }
  co_return true;
}

os::awaitable<void> ask_box(Context& context, BoxSurvey& survey, SurveyOptions options, Way way) {
  if (way == Way::local_if_running) {
    survey.connection = co_await connect_if_running(context);
    if (!survey.connection) {
      co_return;
    }
  } else if (way == Way::among_others) {
    // Of several that are asked at once none may ask the user anything.
    Box box = find_box(context.paths, survey.box);
    survey.connection = co_await contact(context, box, kAskTime);
  } else {
    survey.connection = co_await connect(context, survey.box);
  }
  auto session = co_await survey.connection->open_session(context.trace);
  SessionClient client(context.executor, context.pool, std::move(session), context.output);
  wire::Message info = co_await client.ask(wire::InfoRequest{});
  if (const auto* known = std::get_if<wire::Info>(&info)) {
    survey.agent = known->agent;
  }
  wire::Message question;
  std::string user = user_name(context.environment);
  wire::ListRequest list;
  list.user = user;
  if (options.sessions) {
    wire::SessionsRequest request;
    request.user = user;
    question = request;
  } else {
    question = list;
  }
  wire::Message answer = co_await client.ask(question);
  if (auto* sandboxes = std::get_if<wire::Sandboxes>(&answer)) {
    for (auto& one : sandboxes->sandboxes) {
      KnownSandbox known;
      known.id = one.sandbox;
      known.box = survey.box;
      known.project = one.project;
      known.branch = one.branch;
      known.config = one.config;
      known.url = survey.connection->url(one.sandbox);
      known.state = one.state;
      known.created_at = one.created_at;
      known.used_at = one.used_at;
      known.size_bytes = one.size_bytes;
      known.active = one.active;
      known.holders = std::move(one.holders);
      survey.sandboxes.push_back(std::move(known));
    }
    survey.reached = true;
  } else if (auto* sessions = std::get_if<wire::Sessions>(&answer)) {
    survey.sessions = std::move(sessions->sessions);
    survey.reached = true;
  } else if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    survey.failed = failed_error(*failed, survey.box);
  } else {
    survey.failed =
        UserError("agent", "the box " + survey.box + " does not answer what it was asked");
  }
  if (options.sizes && !survey.sandboxes.empty()) {
    list.sizes = true;
    bool measured = co_await add_sizes(client, survey, list);
    if (!measured) {
      context.output.note("sandbox: the sizes of the sandboxes on the box " + survey.box +
                          " take long to measure, and are left out");
      client.session().close();
      co_return;
    }
  }
  co_await client.finish();
}

// What is on record beside what the box said.
void add_entries(BoxSurvey& survey, const std::vector<Entry>& entries) {
  std::map<std::string, std::size_t> known;
  for (std::size_t i = 0; i < survey.sandboxes.size(); ++i) {
    known.emplace(survey.sandboxes[i].id, i);
  }
  for (const auto& entry : entries) {
    if (entry.key.box != survey.box) {
      continue;
    }
    auto found = known.find(entry.id);
    if (survey.reached && found == known.end() && entry.state == EntryState::ready &&
        entry.agent == survey.agent) {
      survey.gone.push_back(entry);
      continue;
    }
    if (found == known.end()) {
      KnownSandbox record;
      record.id = entry.id;
      record.box = entry.key.box;
      record.created_at = entry.created_at;
      record.used_at = entry.used_at;
      record.state = entry.state == EntryState::starting ? "starting"
                     : !survey.reached                   ? "unreachable"
                                                         : "unknown";
      if (entry.state == EntryState::failed) {
        record.state = "failed";
      }
      found = known.emplace(entry.id, survey.sandboxes.size()).first;
      survey.sandboxes.push_back(std::move(record));
    }
    KnownSandbox& sandbox = survey.sandboxes[found->second];
    sandbox.entry = entry;
    sandbox.project = entry.key.project;
    sandbox.branch = entry.key.branch;
    sandbox.config = entry.key.config;
  }
}

// What this machine knows of them by itself.
void look_here(Context& context, BoxSurvey& survey) {
  SessionLocks locks(context.paths.sessions());
  for (auto& sandbox : survey.sandboxes) {
    sandbox.active = sandbox.active || locks.in_use(sandbox.id);
    // A box may have sandboxes that another machine of this user made: whose directories are there.
    bool made_here = sandbox.entry.has_value() || sandbox.box == kLocalBox;
    sandbox.orphaned = made_here && !sandbox.project.empty() && is_gone(sandbox.project);
  }
}

os::awaitable<void> survey_one(Context& context, BoxSurvey& survey, SurveyOptions options,
                               Way way) {
  survey.failed.reset();
  try {
    co_await ask_box(context, survey, options, way);
  } catch (const UserError& error) {
    survey.failed = error;
  }
}

// Whether the local agent has sandboxes, or removals to finish, whatever is on record here.
bool local_agent_has_any(const Paths& paths) {
  std::error_code error;
  for (const char* name : {"sandboxes", ".removing"}) {
    if (std::filesystem::directory_iterator(paths.agent() / name, error) !=
        std::filesystem::directory_iterator()) {
      return true;
    }
  }
  return false;
}

std::chrono::milliseconds time_of(Way way, SurveyOptions options) {
  std::chrono::milliseconds time = way == Way::among_others ? kAskTime : kWithoutHaste;
  return (options.sizes ? time + kMeasureTime : time) + kAskTime;
}

}  // namespace

bool is_gone(const std::string& directory) {
  struct stat status {};
  return ::stat(directory.c_str(), &status) != 0 && errno == ENOENT;
}

bool is_detached(const KnownSandbox& sandbox) {
  return std::any_of(sandbox.holders.begin(), sandbox.holders.end(),
                     [](const wire::Holder& holder) { return !holder.job.empty(); });
}

std::string describe_state(const KnownSandbox& sandbox) {
  std::string text;
  auto add = [&text](const std::string& word) { text += (text.empty() ? "" : ", ") + word; };
  if (sandbox.orphaned) {
    add("orphaned");
  }
  if (sandbox.active) {
    add("active");
  }
  if (is_detached(sandbox)) {
    add("detached");
  }
  if (sandbox.state != "ready") {
    add(sandbox.state);
  }
  return text;
}

boost::json::object unreachable_json(const BoxSurvey& survey) {
  boost::json::object out;
  out["Box"] = json_text(survey.box);
  out["Message"] = json_text(survey.failed ? survey.failed->what() : "");
  return out;
}

std::string show_bytes(std::int64_t bytes) {
  static const char* const kUnits[] = {"B", "KB", "MB", "GB", "TB", "PB"};
  double amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < std::size(kUnits)) {
    amount /= 1024;
    ++unit;
  }
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", amount, kUnits[unit]);
  return text;
}

os::awaitable<std::vector<Entry>> entries_here(Context& context) {
  std::vector<Entry> entries;
  std::string here = machine_id();
  Resolver resolver = make_resolver(context);
  auto storage = co_await resolver.lock();
  for (const auto& entry : storage->entries()) {
    if (entry.key.box != kLocalBox || entry.key.machine == here) {
      entries.push_back(entry);
    }
  }
  co_return entries;
}

std::optional<std::string> named_box(const Context& context) {
  return chosen_box(context.arguments, context.environment);
}

std::vector<std::string> boxes_to_ask(const Context& context, const std::vector<Entry>& entries) {
  auto named = named_box(context);
  if (!context.arguments.has("all")) {
    return {named.value_or(kLocalBox)};
  }
  if (context.arguments.has("box")) {
    throw UserError("arguments", "--all and --box exclude each other", {}, kMisuse);
  }
  std::set<std::string> boxes = {kLocalBox};
  for (const auto& box : read_boxes(context.paths)) {
    boxes.insert(box.name);
  }
  for (const auto& entry : entries) {
    boxes.insert(entry.key.box);
  }
  return {boxes.begin(), boxes.end()};
}

os::awaitable<std::vector<BoxSurvey>> survey(Context& context, std::vector<std::string> boxes,
                                             const std::vector<Entry>& known,
                                             SurveyOptions options) {
  std::vector<Entry> entries = known;
  std::vector<Question<BoxSurvey>> questions;
  for (const auto& box : boxes) {
    bool on_record = std::any_of(entries.begin(), entries.end(), [&](const Entry& entry) {
      return entry.key.box == box && !(entry.state == EntryState::failed && entry.ending.empty());
    });
    Way way = boxes.size() > 1 ? Way::among_others : Way::named;
    if (box == kLocalBox) {
      on_record = on_record || local_agent_has_any(context.paths);
      way = !on_record || options.sessions ? Way::local_if_running : Way::local;
    }
    Question<BoxSurvey>& question = questions.emplace_back();
    question.time = time_of(way, options);
    question.unanswered.box = box;
    question.unanswered.failed =
        UserError("box", "the box " + box + " does not answer in time", "Nothing was changed.");
    question.ask = [&context, options, way](BoxSurvey& one) {
      return survey_one(context, one, options, way);
    };
  }
  std::vector<BoxSurvey> all = co_await ask_all(context.executor, std::move(questions));
  for (auto& one : all) {
    if (!options.sessions) {
      add_entries(one, entries);
      look_here(context, one);
    }
  }
  co_return all;
}

}  // namespace cli

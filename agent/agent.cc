#include "agent/agent.h"

#include <unistd.h>

#include <boost/json.hpp>

#include "agent/authorized_keys.h"
#include "agent/isolation.h"
#include "agent/jobs.h"
#include "agent/lifetime.h"
#include "agent/limits.h"
#include "agent/listener.h"
#include "agent/local_listener.h"
#include "agent/locks.h"
#include "agent/log.h"
#include "agent/notices.h"
#include "agent/notify.h"
#include "agent/sandboxes.h"
#include "agent/services.h"
#include "agent/store.h"
#include "agent/supervisors.h"
#include "agent/user_locks.h"
#include "protocol/os/clock.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;

namespace {

constexpr int kCannot = 1;
constexpr int kTaken = 75;
constexpr std::chrono::seconds kEndLimit{15};  // for what is ended at a stop: INT, TERM, KILL

// Unwraps what the agent cannot run without.
template <class T>
T need(wire::result<T> value, const char* what) {
  if (!value) {
    throw CannotRun(kCannot, std::string(what) + ": " + value.error().what);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*value);
  }
}

std::filesystem::path prepare(const std::filesystem::path& state) {
  auto absolute = std::filesystem::absolute(state).lexically_normal();
  need(os::make_private_directory(absolute), "cannot use the state directory");
  return absolute;
}

std::unique_ptr<Store> open_store(const std::filesystem::path& state) {
  auto file = state / "agent.db";
  auto store = Store::open(file);
  if (!store && store.error().code == Errc::bad_input) {
    throw CannotRun(kCannot, "the database is damaged: " + store.error().what + "; move " +
                                 file.string() +
                                 "* away, or put a copy back: without it the agent " +
                                 "starts with no sandboxes, and leaves their files alone");
  }
  return need(std::move(store), "cannot open the database");
}

os::FileLock take(const std::filesystem::path& state) {
  auto lock = os::FileLock::try_lock(state / "agent.lock", os::FileLock::Kind::exclusive);
  if (!lock && lock.error().code == Errc::busy) {
    throw CannotRun(kTaken,
                    "another agent has " + state.string() + "; its address is in agent.json there");
  }
  return need(std::move(lock), "cannot lock the state directory");
}

}  // namespace

struct Agent::Parts {
  Parts(os::executor ex, AgentSettings s)
      : settings(std::move(s)),
        state(prepare(settings.serve.state)),
        taken(take(state)),
        store(open_store(state)),
        host_key(
            need(protocol::ssh::PrivateKey::load_or_make(state / "host_key", settings.serve.name),
                 "cannot use the host key")),
        keys(state / "authorized_keys"),
        executor(ex),
        lifetime(ex),
        isolation(need(Isolation::open(isolation_settings()), "cannot isolate sandboxes")),
        supervisors(
            ex, static_cast<std::int64_t>(store->epoch()),
            [this](const std::filesystem::path& directory) { return launch(directory); },
            [this](const std::string& sandbox) { limits.forget(sandbox); }),
        sandboxes(ex, clock, state / "sandboxes", *store, supervisors),
        locks(ex, clock, lock_options()),
        notices(*store),
        user_locks(ex, clock, settings.serve.name, *store, locks, notices),
        jobs(ex, clock, *store, locks, notices, supervisors, sandboxes, lifetime),
        services{ex,
                 lifetime,
                 *store,
                 locks,
                 supervisors,
                 sandboxes,
                 isolation,
                 limits,
                 notices,
                 user_locks,
                 jobs,
                 info(),
                 settings.serve.slots,
                 settings.serve.trust_claimed_users} {}

  Isolation::Settings isolation_settings() {
    Isolation::Settings isolated;
    isolated.mode = settings.serve.isolation.value_or(IsolationMode::automatic);
    isolated.trust_commands = settings.serve.trust_commands;
    isolated.exposed = settings.serve.exposed;
    isolated.program = settings.program;
    isolated.scratch = state;
    isolated.environment = os::environment();
    // Whoever they say that they are, on the local box they share one account.
    isolated.users = [this]() -> std::size_t {
      return settings.serve.trust_claimed_users ? 1 : keys.user_count();
    };
    return isolated;
  }
  wire::result<std::vector<std::string>> launch(const std::filesystem::path& directory) {
    auto sandbox = sandboxes.record(directory.filename().string());
    if (!sandbox) {
      return wire::Failure(Errc::not_found, "no sandbox " + directory.filename().string());
    }
    auto plan = limits.plan(*sandbox);
    if (!plan) {
      return plan.error();
    }
    return isolation.supervise(*sandbox, directory, *plan);
  }

  LockTableOptions lock_options() const {
    LockTableOptions options;
    options.box = settings.serve.name;
    options.epoch = store->epoch();
    options.slots = settings.serve.slots;
    options.ttl = settings.lock_ttl;
    return options;
  }
  wire::Info info() const {
    wire::Info info;
    info.agent = store->agent_id();
    info.name = settings.serve.name;
    info.version = SANDBOX_VERSION;
    info.protocol = wire::kProtocolVersion;
    info.ttl_seconds = settings.lock_ttl.count();
    return info;
  }

  os::awaitable<void> start();
  os::awaitable<void> wait_for_the_end();
  os::awaitable<bool> finish();
  void announce();

  AgentSettings settings;
  std::filesystem::path state;
  os::FileLock taken;
  os::SystemClock clock;
  std::unique_ptr<Store> store;
  protocol::ssh::PrivateKey host_key;
  AuthorizedKeys keys;
  os::executor executor;
  Lifetime lifetime;
  Isolation isolation;
  Limits limits = Limits::open();
  Supervisors supervisors;
  Sandboxes sandboxes;
  Locks locks;
  Notices notices;
  UserLocks user_locks;
  Jobs jobs;
  Services services;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<LocalListener> local;
  std::string address;
};

os::awaitable<void> Agent::Parts::start() {
  // One that was killed left its address.
  std::error_code none;
  std::filesystem::remove(state / "agent.json", none);
  auto loaded = co_await sandboxes.load();
  need(std::move(loaded), "cannot read the sandboxes");
  auto told = co_await notices.load();
  need(std::move(told), "cannot read the notices");
  auto reserved = co_await user_locks.load();
  need(std::move(reserved), "cannot read the user lock");
  auto adopted = co_await jobs.adopt();
  need(std::move(adopted), "cannot read the jobs");
  local = need(LocalListener::open(services, state / "agent.sock"), "cannot listen");
  listener =
      need(Listener::open(services, keys, host_key, settings.serve.host, settings.serve.port),
           "cannot listen");
  address = listener->address();
  announce();
}

void Agent::Parts::announce() {
  boost::json::object self{{"Address", address},
                           {"HostKey", host_key.public_key().text()},
                           {"PID", static_cast<std::int64_t>(::getpid())},
                           {"Agent", services.info.agent}};
  need(os::write_file(state / "agent.json", boost::json::serialize(self) + "\n"),
       "cannot write agent.json");
  log::info("listening", {{"address", address},
                          {"name", settings.serve.name},
                          {"agent", services.info.agent},
                          {"version", services.info.version},
                          {"epoch", std::to_string(store->epoch())}});
  notify_service_manager(settings.notify_socket, "READY=1");
}

// Until it is told to stop, or nobody has used it for long enough.
os::awaitable<void> Agent::Parts::wait_for_the_end() {
  while (!lifetime.stopping()) {
    if (!settings.serve.idle_exit || lifetime.counted() > 0 || !locks.idle()) {
      co_await lifetime.changed().wait();
      continue;
    }
    bool changed = co_await lifetime.changed().wait_until(std::chrono::steady_clock::now() +
                                                          *settings.serve.idle_exit);
    if (!changed && lifetime.counted() == 0) {
      log::info("idle");
      lifetime.stop();
    }
  }
}

os::awaitable<bool> Agent::Parts::finish() {
  log::info("stopping");
  notify_service_manager(settings.notify_socket, "STOPPING=1");
  listener->close();
  local->close();
  co_await jobs.close();
  using clock_type = std::chrono::steady_clock;
  bool empty = co_await lifetime.empty_by(clock_type::now() + settings.stop_grace);
  if (!empty) {
    // Clients vanish as far as their sessions can tell: jobs are ended and their results kept.
    listener->close_connections();
    local->close_connections();
    empty = co_await lifetime.empty_by(clock_type::now() + kEndLimit);
  }
  co_await sandboxes.settled();
  std::error_code ignored;
  std::filesystem::remove(state / "agent.json", ignored);
  log::info("stopped", {{"clean", empty ? "yes" : "no"}});
  co_return empty;
}

Agent::Agent(os::executor ex, AgentSettings settings)
    : parts_(std::make_unique<Parts>(std::move(ex), std::move(settings))) {}

Agent::~Agent() = default;

os::awaitable<bool> Agent::run() {
  co_await parts_->start();
  os::spawn(parts_->executor, "listener", parts_->listener->run());
  os::spawn(parts_->executor, "local listener", parts_->local->run());
  co_await parts_->wait_for_the_end();
  bool clean = co_await parts_->finish();
  co_return clean;
}

void Agent::stop() { parts_->lifetime.stop(); }

const std::string& Agent::address() const { return parts_->address; }

}  // namespace agent

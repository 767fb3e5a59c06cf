#include "cli/connection.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "cli/bridge_connection.h"
#include "cli/context.h"
#include "cli/error.h"
#include "cli/local_agent.h"
#include "protocol/os/paths.h"
#include "protocol/ssh/client.h"
#include "protocol/wire/directives.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace ssh = protocol::ssh;
namespace wire = protocol::wire;

std::string fingerprint(const std::string& host_key) {
  auto key = ssh::PublicKey::parse(host_key);
  return key ? key->fingerprint() : wire::printable(host_key, 200);
}

namespace {

constexpr const char* kSshUser = "sandbox";

struct Attempt {
  wire::result<std::shared_ptr<ssh::ClientConnection>> ssh = wire::Failure(wire::Errc::io);
  std::string seen_key;  // the host key that was shown
};

os::awaitable<Attempt> attempt(Context& context, const ssh::PrivateKey& key, Address address,
                               std::string pinned, std::chrono::milliseconds time) {
  auto seen = std::make_shared<std::string>();
  ssh::ClientOptions options;
  options.host = address.host;
  options.port = address.port;
  options.user = kSshUser;
  options.timeout = time;
  options.check_host_key = [seen, pinned](const ssh::PublicKey& host_key) {
    *seen = host_key.text();
    return pinned.empty() || pinned == host_key.text();
  };
  context.trace.event("connecting to " + address.text());
  Attempt done;
  done.ssh = co_await ssh::connect(context.executor, key, std::move(options));
  done.seen_key = *seen;
  if (done.ssh) {
    context.trace.event("connected to " + address.text());
  }
  co_return done;
}

UserError not_connected(const Box& box, const wire::Failure& failure, const ssh::PrivateKey& key) {
  std::string at =
      box.name == box.address.text() ? box.name : box.name + " (" + box.address.text() + ")";
  if (failure.code == wire::Errc::denied) {
    return UserError("box", "the box " + at + " does not accept this user's key",
                     "On the box: sandbox-agent authorize --state DIR --user NAME '" +
                         key.public_key().text() + "'");
  }
  if (failure.code == wire::Errc::timed_out) {
    return UserError("box", "the box " + at + " does not answer in time",
                     "Is it on, and is the port open? Nothing was changed.");
  }
  return UserError("box", "cannot reach the box " + at + ": " + failure.what,
                   "Is its agent running, and is the address right? Nothing was changed.");
}

UserError other_key(const Box& box, const std::string& seen) {
  return UserError("box",
                   "the box " + box.name + " at " + box.address.text() +
                       " has another host key than the one that is kept: " + fingerprint(seen) +
                       ", not " + fingerprint(box.host_key),
                   "Somebody may be in between. If the box was set up anew, ask there for its key, "
                   "then: sandbox boxes edit --name " +
                       wire::shell_quote(box.name) + " --host-key KEY. Nothing was changed.");
}

// To the agent's own port.
class DirectConnection : public Connection {
 public:
  DirectConnection(os::executor executor, std::shared_ptr<ssh::ClientConnection> ssh, Box box)
      : Connection(std::move(box)), executor_(executor), ssh_(std::move(ssh)) {}

  os::awaitable<std::unique_ptr<Session>> open_session(Trace& trace) override {
    std::string directive = std::string(wire::text(wire::Directive::session)) +
                            " {\"version\":" + std::to_string(wire::kProtocolVersion) + "}";
    trace.event(directive);
    auto stream = co_await ssh_->exec(directive);
    if (!stream) {
      throw UserError("box", "the box " + box().name + " opens no session: " + stream.error().what);
    }
    auto session =
        std::make_unique<Session>(executor_, std::move(*stream), trace, "the box " + box().name);
    co_return session;
  }

 private:
  os::executor executor_;
  std::shared_ptr<ssh::ClientConnection> ssh_;
};

os::awaitable<std::shared_ptr<Connection>> contact_direct(Context& context, Box box,
                                                          std::chrono::milliseconds time) {
  ssh::PrivateKey key = own_key(context);
  Attempt done = co_await attempt(context, key, box.address, box.host_key, time);
  if (!done.ssh) {
    if (!box.host_key.empty() && !done.seen_key.empty() && done.seen_key != box.host_key) {
      throw other_key(box, done.seen_key);
    }
    throw not_connected(box, done.ssh.error(), key);
  }
  box.host_key = done.seen_key;
  auto connection = std::make_shared<DirectConnection>(context.executor, *done.ssh, box);
  co_return connection;
}

Box local_box(const AgentAddress& agent) {
  Box box;
  box.name = kLocalBox;
  box.address = agent.address;
  box.host_key = agent.host_key;
  return box;
}

os::awaitable<std::shared_ptr<Connection>> connect_local(Context& context,
                                                         const ssh::PrivateKey& key,
                                                         bool may_start) {
  LocalAgent agent(context.environment, context.paths, context.executor);
  std::optional<AgentAddress> found = agent.running();
  std::optional<wire::Failure> failure;
  // The second round is for an agent that ended between saying where it listens and our coming.
  for (int round = 0; round < 3; ++round) {
    int tried = 0;
    if (found) {
      Attempt done = co_await attempt(context, key, found->address, found->host_key, kConnectTime);
      if (done.ssh) {
        auto connection =
            std::make_shared<DirectConnection>(context.executor, *done.ssh, local_box(*found));
        co_return connection;
      }
      failure = done.ssh.error();
      // An agent that takes no key of ours (or only others') runs: let the key in, without starting
      // a second one.
      bool let_in = failure->code == wire::Errc::denied;
      tried = let_in || failure->code == wire::Errc::timed_out ? 0 : found->pid;
    }
    if (!may_start) {
      co_return nullptr;
    }
    agent.start(key.public_key());
    AgentAddress started = co_await agent.wait(tried);
    found = started;
  }
  throw not_connected(local_box(*found), *failure, key);
}

// As ssh does: a key that others can read may be theirs already.
void refuse_exposed(const std::filesystem::path& key) {
  struct stat status {};
  if (::stat(key.c_str(), &status) != 0 || status.st_uid != ::geteuid() ||
      (status.st_mode & 077) == 0) {
    return;
  }
  char mode[8];
  std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(status.st_mode & 07777));
  throw UserError("box",
                  "this user's key " + key.string() + " is open to others: its mode is " + mode,
                  "chmod 600 " + wire::shell_quote(key.string()) +
                      ", if nobody has read it; else "
                      "move it away to have a new one made.");
}

}  // namespace

std::string Connection::url(const std::string& sandbox) const {
  return box_.via_ssh.empty() ? "ssh://" + sandbox + "@" + box_.address.text() : std::string();
}

ssh::PrivateKey own_key(const Context& context) {
  if (auto made = os::make_private_directory(context.paths.config); !made) {
    throw UserError("box", "cannot use the directory of this user's key: " + made.error().what,
                    "Make it yours alone, or set XDG_CONFIG_HOME.");
  }
  refuse_exposed(context.paths.key());
  auto key = ssh::PrivateKey::load_or_make(context.paths.key(),
                                           user_name(context.environment) + "@sandbox");
  if (!key) {
    throw UserError(
        "box",
        "cannot use this user's key " + context.paths.key().string() + ": " + key.error().what,
        key.error().code == wire::Errc::bad_input
            ? "Move that file away to have a new one made; keys with a passphrase cannot be used."
            : "Make that file and its directory yours.");
  }
  return *key;
}

os::awaitable<std::shared_ptr<Connection>> contact(Context& context, const Box& wanted,
                                                   std::chrono::milliseconds time) {
  Box box = wanted;
  std::shared_ptr<Connection> connection;
  if (box.via_ssh.empty()) {
    connection = co_await contact_direct(context, box, time);
  } else {
    connection = co_await connect_bridge(context, box, time, false);
  }
  co_return connection;
}

os::awaitable<std::shared_ptr<Connection>> connect(Context& context, const std::string& name,
                                                   std::chrono::milliseconds time) {
  if (name == kLocalBox) {
    ssh::PrivateKey key = own_key(context);
    auto local = co_await connect_local(context, key, true);
    co_return local;
  }
  Box box = find_box(context.paths, name);
  if (!box.via_ssh.empty()) {
    auto bridge = co_await connect_bridge(context, box, time, true);
    co_return bridge;
  }
  auto connection = co_await contact_direct(context, box, time);
  if (box.host_key.empty()) {
    std::string seen = connection->box().host_key;
    box.host_key = pin_host_key(context.paths, box, seen);
    if (box.host_key != seen) {
      throw other_key(box, seen);
    }
    context.output.warn("first contact with " + box.name + ": its host key is kept (" +
                        fingerprint(seen) + ")");
  }
  co_return connection;
}

os::awaitable<std::shared_ptr<Connection>> connect_if_running(Context& context) {
  ssh::PrivateKey key = own_key(context);
  auto local = co_await connect_local(context, key, false);
  co_return local;
}

}  // namespace cli

// Resolution with real flocks and an agent that is a table in memory.
#include "cli/resolve.h"

#include <signal.h>

#include <set>

#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

namespace {

namespace os = protocol::os;

// What the box knows. Starting takes `rounds` turns of the loop, so that others come in between.
struct FakeBox {
  std::set<std::string> sandboxes;
  std::vector<std::string> ended;
  int starts = 0;
  int running = 0;
  int most_at_once = 0;
};

class FakeStarter : public cli::SandboxStarter {
 public:
  FakeStarter(os::executor executor, FakeBox& box) : executor_(executor), box_(box) {}
  os::awaitable<std::string> start(const cli::Entry& entry) override {
    std::string id = entry.id;
    ++box_.starts;
    box_.most_at_once = std::max(box_.most_at_once, ++box_.running);
    for (const auto& old : entry.ending) {
      box_.sandboxes.erase(old);
      box_.ended.push_back(old);
    }
    box_.sandboxes.insert(id);
    co_await os::pause(executor_, std::chrono::milliseconds(20));
    --box_.running;
    if (during) {
      during();
    }
    if (fail) {
      box_.sandboxes.erase(id);
      throw cli::StartFailed(
          cli::UserError("setup", "the setup command `false` failed with status 1"), ended);
    }
    co_return "agent";
  }
  os::awaitable<void> abandon(const cli::Entry& entry) override {
    box_.sandboxes.erase(entry.id);
    abandoned = true;
    co_return;
  }
  os::awaitable<std::optional<cli::Unrecorded>> find_unrecorded(
      const cli::Entry&, std::vector<std::string> on_record) override {
    asked_with = std::move(on_record);
    std::optional<cli::Unrecorded> found = unrecorded;
    co_return found;
  }
  std::optional<cli::Unrecorded> unrecorded;
  std::optional<std::vector<std::string>> asked_with;
  bool fail = false;
  bool ended = true;
  bool abandoned = false;
  std::function<void()> during;

 private:
  os::executor executor_;
  FakeBox& box_;
};

struct World {
  World() {
    paths.state = directory / "state";
    paths.config = directory / "config";
    request.key.box = "local";
    request.key.project = "/p";
    request.key.branch = "main";
    request.key.config = "/p/.sandbox.yml";
    options.json = true;
  }
  cli::Resolver resolver() { return cli::Resolver(loop.executor(), pool, output, paths); }
  std::vector<cli::Entry> stored() {
    auto locked = cli::Storage(paths.storage()).try_lock();
    REQUIRE(locked);
    return locked->entries();
  }
  cli::Entry put(const std::string& id, cli::EntryState state) {
    cli::Entry entry;
    entry.key = request.key;
    entry.id = id;
    entry.state = state;
    entry.agent = state == cli::EntryState::ready ? "agent" : "";
    entry.created_at = cli::timestamp();
    auto locked = cli::Storage(paths.storage()).try_lock();
    REQUIRE(locked);
    locked->entries().push_back(entry);
    locked->save();
    return entry;
  }

  test::TemporaryDirectory directory;
  test::Loop loop;
  boost::asio::thread_pool pool{2};
  cli::OutputOptions options;
  cli::Output output{options};
  cli::Paths paths;
  cli::ResolveRequest request;
  FakeBox box;
};

}  // namespace

TEST_CASE("eight at once make one sandbox") {
  World world;
  std::vector<std::string> ids;
  int made = 0;
  auto one = [](World& w, std::vector<std::string>& all, int& count) -> os::awaitable<void> {
    auto resolver = w.resolver();
    FakeStarter starter(w.loop.executor(), w.box);
    auto resolved = co_await resolver.resolve(w.request, starter);
    all.push_back(resolved.entry.id);
    count += resolved.made ? 1 : 0;
  };
  for (int i = 0; i < 8; ++i) {
    world.loop.start(one(world, ids, made));
  }
  auto all = [](World& w, std::vector<std::string>& done) -> os::awaitable<void> {
    while (done.size() < 8) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds(5));
    }
  };
  world.loop.run(all(world, ids));
  CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == 1);
  CHECK(made == 1);
  CHECK(world.box.starts == 1);
  CHECK(world.box.sandboxes.size() == 1);
  CHECK(world.stored().size() == 1);
}

TEST_CASE("a ready one is found without asking anybody") {
  World world;
  world.put("abc", cli::EntryState::ready);
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  auto resolved = world.loop.run(resolver.resolve(world.request, starter));
  CHECK(resolved.entry.id == "abc");
  CHECK_FALSE(resolved.made);
  CHECK(world.box.starts == 0);
}

TEST_CASE("one that the box has and the storage has lost is found again, and none is made") {
  World world;
  world.put("other", cli::EntryState::ready);
  {
    auto locked = cli::Storage(world.paths.storage()).try_lock();
    locked->entries()[0].key.branch = "other";
    locked->entries()[0].ending = {"old"};
    locked->save();
  }
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  starter.unrecorded = cli::Unrecorded{"lost", "agent"};
  auto resolved = world.loop.run(resolver.resolve(world.request, starter));
  CHECK(resolved.entry.id == "lost");
  CHECK_FALSE(resolved.made);
  CHECK(world.box.starts == 0);
  CHECK(*starter.asked_with == std::vector<std::string>{"other", "old"});
  REQUIRE(world.stored().size() == 2);
  CHECK(world.stored()[1].id == "lost");
  CHECK(world.stored()[1].agent == "agent");
  CHECK(world.stored()[1].state == cli::EntryState::ready);
  CHECK_FALSE(starter.abandoned);
}

TEST_CASE("the next one goes on with the id of a starter that died") {
  World world;
  world.put("abc", cli::EntryState::starting);
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  auto resolved = world.loop.run(resolver.resolve(world.request, starter));
  CHECK(resolved.entry.id == "abc");
  CHECK(resolved.made);
  REQUIRE(world.stored().size() == 1);
  CHECK(world.stored()[0].state == cli::EntryState::ready);
  CHECK(world.stored()[0].agent == "agent");
}

TEST_CASE("a starter killed with -9 leaves nobody waiting") {
  World world;
  auto entry = world.put("abc", cli::EntryState::starting);
  // A process that holds the starter lock, as flock(1) does, until it is killed.
  auto file = world.paths.starters() / (entry.key.file_name() + ".lock");
  REQUIRE(os::make_private_directory(world.paths.starters()));
  os::Spawn spawn;
  spawn.argv = {"flock", "-x", file.string(), "sleep", "600"};
  spawn.new_group = true;
  auto holder = os::Process::start(spawn);
  REQUIRE(holder);
  auto resolver = world.resolver();
  auto held = [](World& w, cli::Resolver& r) -> os::awaitable<void> {
    while (r.try_lock_starter(w.request.key)) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds(5));
    }
  };
  world.loop.run(held(world, resolver));
  auto kill = [](World& w, os::Process& process) -> os::awaitable<void> {
    co_await os::pause(w.loop.executor(), std::chrono::milliseconds(50));
    CHECK(w.box.starts == 0);
    CHECK(process.kill_group(SIGKILL));
  };
  world.loop.start(kill(world, *holder));
  FakeStarter starter(world.loop.executor(), world.box);
  auto resolved = world.loop.run(resolver.resolve(world.request, starter));
  CHECK(resolved.entry.id == "abc");
  holder->wait_blocking();
}

TEST_CASE("waiters hear of the failure, later ones start anew") {
  World world;
  auto resolver = world.resolver();
  FakeStarter failing(world.loop.executor(), world.box);
  failing.fail = true;
  int failed = 0;
  auto one = [](World& w, FakeStarter& starter, int& count) -> os::awaitable<void> {
    auto mine = w.resolver();
    try {
      co_await mine.resolve(w.request, starter);
    } catch (const cli::UserError& error) {
      CHECK(std::string(error.what()).find("`false`") != std::string::npos);
      ++count;
    }
  };
  for (int i = 0; i < 3; ++i) {
    world.loop.start(one(world, failing, failed));
  }
  auto all = [](World& w, int& count) -> os::awaitable<void> {
    while (count < 3) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds(5));
    }
  };
  world.loop.run(all(world, failed));
  CHECK(world.box.starts == 1);
  REQUIRE(world.stored().size() == 1);
  CHECK(world.stored()[0].state == cli::EntryState::failed);
  std::string first = world.stored()[0].id;

  FakeStarter working(world.loop.executor(), world.box);
  auto resolved = world.loop.run(resolver.resolve(world.request, working));
  CHECK(resolved.made);
  CHECK(resolved.entry.id != first);
  CHECK(world.stored().size() == 1);
}

TEST_CASE("what a failed start may have left is ended by the next") {
  World world;
  auto resolver = world.resolver();
  FakeStarter failing(world.loop.executor(), world.box);
  failing.fail = true;
  failing.ended = false;
  CHECK_THROWS_AS(world.loop.run(resolver.resolve(world.request, failing)), cli::UserError);
  std::string left = world.stored()[0].id;
  FakeStarter working(world.loop.executor(), world.box);
  world.loop.run(resolver.resolve(world.request, working));
  CHECK(world.box.ended == std::vector<std::string>{left});
  CHECK(world.stored()[0].ending.empty());
}

TEST_CASE("one that was stopped while it was being made is ended, not recorded") {
  World world;
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  starter.during = [&world] {
    auto locked = cli::Storage(world.paths.storage()).try_lock();
    REQUIRE(locked);  // it is not held while a sandbox is made
    locked->entries().clear();
    locked->save();
  };
  CHECK_THROWS_AS(world.loop.run(resolver.resolve(world.request, starter)), cli::UserError);
  CHECK(starter.abandoned);
  CHECK(world.box.sandboxes.empty());
  CHECK(world.stored().empty());
}

TEST_CASE("push and pull make none") {
  World world;
  world.request.make = false;
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  CHECK_THROWS_AS(world.loop.run(resolver.resolve(world.request, starter)), cli::UserError);
  CHECK(world.box.starts == 0);
  CHECK(world.stored().empty());
}

TEST_CASE(
    "without a configuration the branch's only sandbox will do, and several are asked about") {
  World world;
  world.put("abc", cli::EntryState::ready);
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  auto request = world.request;
  request.key.config.clear();
  CHECK(world.loop.run(resolver.resolve(request, starter)).entry.id == "abc");
  world.request.key.config = "/p/other.yml";
  world.put("def", cli::EntryState::ready);
  CHECK_THROWS_AS(world.loop.run(resolver.resolve(request, starter)), cli::UserError);
  request.key.branch = "other";
  request.make = false;
  CHECK_THROWS_AS(world.loop.run(resolver.resolve(request, starter)), cli::UserError);
}

TEST_CASE("only the same agent's word deletes an entry, and only the same id's") {
  World world;
  world.put("abc", cli::EntryState::ready);
  auto resolver = world.resolver();
  world.loop.run(resolver.forget("abc", "another"));
  CHECK(world.stored().size() == 1);
  world.loop.run(resolver.forget("def", "agent"));
  CHECK(world.stored().size() == 1);
  world.loop.run(resolver.forget("abc", "agent"));
  CHECK(world.stored().empty());
}

TEST_CASE("a detached HEAD that moved on takes its sandbox along") {
  World world;
  world.request.key.branch = "detached@aaaaaaaaaaaa";
  world.put("old", cli::EntryState::ready);
  world.request.key.branch = "detached@bbbbbbbbbbbb";
  world.put("stranger", cli::EntryState::ready);
  world.request.key.branch = "detached@cccccccccccc";
  auto resolver = world.resolver();
  auto ancestors = [](const std::vector<std::string>&) {
    return std::vector<std::string>{"aaaaaaaaaaaa"};
  };
  world.loop.run(resolver.adopt_detached(world.request.key, ancestors));
  FakeStarter starter(world.loop.executor(), world.box);
  CHECK(world.loop.run(resolver.resolve(world.request, starter)).entry.id == "old");
  CHECK(world.box.starts == 0);
}

TEST_CASE("a branch takes over nothing") {
  World world;
  world.request.key.branch = "detached@aaaaaaaaaaaa";
  world.put("old", cli::EntryState::ready);
  world.request.key.branch = "main";
  auto resolver = world.resolver();
  auto ancestors = [](const std::vector<std::string>&) -> std::vector<std::string> {
    throw std::runtime_error("not to be asked");
  };
  world.loop.run(resolver.adopt_detached(world.request.key, ancestors));
  CHECK(world.stored()[0].key.branch == "detached@aaaaaaaaaaaa");
}

TEST_CASE("replacing takes the old one's lock before anything changes, and ends it after") {
  World world;
  world.put("old", cli::EntryState::ready);
  world.box.sandboxes.insert("old");
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  std::vector<std::string> happened;
  auto take = [&](cli::Entry entry) -> os::awaitable<void> {
    happened.push_back("take " + entry.id + (world.stored()[0].id == "old" ? " before" : " after"));
    co_return;
  };
  auto end = [&]() -> os::awaitable<std::optional<cli::UserError>> {
    happened.emplace_back(world.stored()[0].id == "old" ? "end before" : "end after");
    world.box.sandboxes.erase("old");
    std::optional<cli::UserError> ended;
    co_return ended;
  };
  auto replaced = world.loop.run(resolver.replace(world.request, starter, take, end));
  CHECK(happened == std::vector<std::string>{"take old before", "end after"});
  CHECK(replaced.old_id == "old");
  CHECK(world.box.sandboxes == std::set<std::string>{replaced.entry.id});
  REQUIRE(world.stored().size() == 1);
  CHECK(world.stored()[0].id == replaced.entry.id);
  CHECK(world.stored()[0].ending.empty());
}

TEST_CASE("replacing that is refused changes nothing") {
  World world;
  world.put("old", cli::EntryState::ready);
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  auto take = [](cli::Entry) -> os::awaitable<void> {
    throw cli::UserError("lock", "busy", "", cli::kBusy);
    co_return;
  };
  auto end = []() -> os::awaitable<std::optional<cli::UserError>> {
    std::optional<cli::UserError> ended;
    co_return ended;
  };
  CHECK_THROWS_AS(world.loop.run(resolver.replace(world.request, starter, take, end)),
                  cli::UserError);
  REQUIRE(world.stored().size() == 1);
  CHECK(world.stored()[0].id == "old");
  CHECK(world.stored()[0].state == cli::EntryState::ready);
  CHECK(world.box.starts == 0);
}

TEST_CASE("an old one that is used again at the last moment stays on record") {
  World world;
  world.put("old", cli::EntryState::ready);
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  auto take = [](cli::Entry) -> os::awaitable<void> { co_return; };
  auto in_use = []() -> os::awaitable<std::optional<cli::UserError>> {
    std::optional<cli::UserError> why = cli::UserError("lock", "in use", "", cli::kBusy);
    co_return why;
  };
  auto fails = []() -> os::awaitable<std::optional<cli::UserError>> {
    std::optional<cli::UserError> none;
    co_await os::pause(co_await boost::asio::this_coro::executor, std::chrono::milliseconds(0));
    throw cli::UserError("box", "the connection was lost");
    co_return none;
  };
  for (const std::function<os::awaitable<std::optional<cli::UserError>>()>& end :
       {std::function<os::awaitable<std::optional<cli::UserError>>()>(in_use),
        std::function<os::awaitable<std::optional<cli::UserError>>()>(fails)}) {
    CHECK_THROWS_AS(world.loop.run(resolver.replace(world.request, starter, take, end)),
                    cli::UserError);
    REQUIRE(world.stored().size() == 1);
    CHECK(world.stored()[0].id == "old");
    CHECK(world.stored()[0].state == cli::EntryState::ready);
    CHECK(world.stored()[0].ending.empty());
  }
  CHECK(world.box.starts == 0);
}

TEST_CASE("another process that is starting it is waited for so long as was said, or not at all") {
  World world;
  auto entry = world.put("abc", cli::EntryState::starting);
  REQUIRE(os::make_private_directory(world.paths.starters()));
  auto file = world.paths.starters() / (entry.key.file_name() + ".lock");
  auto another = os::FileLock::try_lock(file, os::FileLock::Kind::exclusive);
  REQUIRE(another);
  auto resolver = world.resolver();
  FakeStarter starter(world.loop.executor(), world.box);
  auto take = [](cli::Entry) -> os::awaitable<void> { co_return; };
  auto end = []() -> os::awaitable<std::optional<cli::UserError>> {
    std::optional<cli::UserError> ended;
    co_return ended;
  };
  for (auto [seconds, status] : {std::pair(0, cli::kBusy), std::pair(1, cli::kTimedOut)}) {
    INFO(seconds);
    world.request.wait_seconds = seconds;
    int resolved = 0;
    int replaced = 0;
    try {
      world.loop.run(resolver.resolve(world.request, starter));
    } catch (const cli::UserError& error) {
      resolved = error.status;
    }
    try {
      world.loop.run(resolver.replace(world.request, starter, take, end));
    } catch (const cli::UserError& error) {
      replaced = error.status;
    }
    CHECK(resolved == status);
    CHECK(replaced == status);
  }
  CHECK(world.box.starts == 0);
  CHECK(world.stored()[0].state == cli::EntryState::starting);
}

TEST_CASE("a beginning of an id names the one that has it") {
  World world;
  world.put("abcdef01", cli::EntryState::ready);
  world.request.key.branch = "b";
  world.put("abcdef02", cli::EntryState::ready);
  auto locked = cli::Storage(world.paths.storage()).try_lock();
  CHECK(cli::find_by_id(*locked, "abcdef01")->id == "abcdef01");
  CHECK_THROWS_AS(cli::find_by_id(*locked, "abcdef"), cli::UserError);
  CHECK(cli::find_by_id(*locked, "abc") == nullptr);
}

TEST_CASE("a use is noted, once a minute, and a look is none") {
  World world;
  world.put("a", cli::EntryState::ready);
  const std::string long_ago = "2026-01-31T23:59:59Z";
  auto used_at = [&](const std::string& at) {
    auto locked = cli::Storage(world.paths.storage()).try_lock();
    REQUIRE(locked);
    locked->entries().front().used_at = at;
    locked->save();
  };
  auto resolve = [&] {
    FakeStarter starter(world.loop.executor(), world.box);
    auto resolver = world.resolver();
    return world.loop.run(resolver.resolve(world.request, starter)).entry.used_at;
  };
  used_at(long_ago);
  world.request.use = false;
  CHECK(resolve() == long_ago);
  CHECK(world.stored().front().used_at == long_ago);
  world.request.use = true;
  const std::string now = cli::timestamp();
  CHECK(resolve() >= now);
  CHECK(world.stored().front().used_at >= now);
  // Another second of this very minute; when the minute ends just here there is nothing to see.
  const std::string minute = cli::timestamp().substr(0, 16);
  used_at(minute + ":0xZ");
  resolve();
  if (cli::timestamp().substr(0, 16) == minute) {
    CHECK(world.stored().front().used_at == minute + ":0xZ");
  }
}

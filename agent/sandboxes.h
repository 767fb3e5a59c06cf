// The sandboxes of this box: their records, their directories, who uses them, and their removal. A
// sandbox belongs to its user; to anybody else it does not exist. Looks at no file that sandboxed
// code could have written.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/lock_table.h"
#include "agent/store.h"
#include "agent/supervisors.h"
#include "protocol/os/async.h"
#include "protocol/os/clock.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace agent {

using Sandbox = SandboxRecord;

// Who uses a sandbox, as others see it.
struct SandboxUse {
  std::string user;
  std::string scope;
  LockOwner owner = 0;  // whose lock tells more; 0: nobody's
  std::string verb;     // what it does without a lock
  std::string command;
  bool session = true;  // false: a detached job
};

class Sandboxes {
 public:
  // `root` is the directory that holds one directory per sandbox.
  Sandboxes(protocol::os::executor ex, const protocol::os::Clock& clock, std::filesystem::path root,
            Store& store, Supervisors& supervisors);
  ~Sandboxes();

  // Once, before anybody is let in: reads the records, and finishes removals and creations that an
  // earlier agent began. A directory without a record that may hold work is left alone and warned
  // of: the database may be an older one, or a new one.
  awaitable<result<void>> load();
  std::vector<std::string> ids() const;

  // std::nullopt too when it is somebody else's.
  std::optional<Sandbox> find(const std::string& id, const std::string& user) const;
  std::vector<Sandbox> of(const std::string& user) const;
  // The one that a stock client means: an id, the only id that begins so (4 characters or more),
  // or, by the names `sandbox` and `rwx-cli`, the caller's only or latest used one. Errc::not_found
  // and refused (several) say so to a person.
  result<Sandbox> resolve(const std::string& name, const std::string& user) const;
  // Whoever asks, and also while it is being ended.
  std::optional<Sandbox> record(const std::string& id) const;
  // Whoever asks: the one of this id, or the only one whose id begins so (4 characters or more).
  std::optional<Sandbox> named(const std::string& name) const;
  // Whose sandbox has exactly this id, whoever asks.
  std::optional<std::string> owner(const std::string& id) const;

  // Makes the sandbox, or finds it as it is. Errc::bad_input, exists (another's id), no_space ...
  awaitable<result<Sandbox>> create(protocol::wire::Create wanted, std::string user);
  awaitable<result<Sandbox>> set_ready(std::string id);
  void note_synced(const std::string& id);

  // Returns when it is not being made or removed, and nobody decides about its removal: it is there
  // then, whole, or it is not.
  awaitable<void> decided(std::string id);

  // Holds a sandbox in use, by a shared flock on its `.lock`: it is not removed under its user's
  // feet without on_end being called first, and not at all by remove_if_idle.
  class Use {
   public:
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    friend class Sandboxes;
    struct Place;
    explicit Use(std::unique_ptr<Place> place);
    std::unique_ptr<Place> place_;
  };
  // Errc::not_found when it is gone or going; busy while somebody decides whether it goes; what
  // else keeps it from being locked names the session lock: then nothing may be done in the
  // sandbox. `on_end` is called once when the sandbox is being ended; let go of the Use soon after.
  result<std::unique_ptr<Use>> use(const std::string& id, SandboxUse who,
                                   std::function<void()> on_end);
  // The same, but waits until it is decided().
  awaitable<result<std::unique_ptr<Use>>> use_when_decided(std::string id, SandboxUse who,
                                                           std::function<void()> on_end);
  struct InUse {
    std::string sandbox;
    std::string owner;  // the sandbox's user
    SandboxUse who;
    std::int64_t since = 0;  // seconds since 1970
  };
  std::vector<InUse> uses() const;
  // Does anybody use it, or does anything run in it? Asked of the lock, and of nothing else.
  bool active(const std::string& id) const;
  // What it takes of the disk, in bytes. Looks at every file, on a thread of its own.
  awaitable<std::uint64_t> size(std::string id);

  // Ends its users and jobs, removes its files and its record. The caller must not hold a Use of
  // it. Errc::not_found; busy when something keeps using it; no_space, denied ... when its files
  // could not be removed (they are, at the next start).
  awaitable<result<void>> remove(std::string id);

  struct IdleRemoval {
    bool keep_unpulled = false;           // not when something would be lost with it
    bool dry_run = false;                 // decide, and leave it
    std::function<std::string()> claims;  // who else holds or waits for its lock; empty: nobody
  };
  // Removes it only if nobody uses it and nothing runs in it, which is decided under its exclusive
  // lock; whoever comes meanwhile waits. Errc::not_found; busy with who uses it; refused with what
  // would be lost.
  awaitable<result<void>> remove_if_idle(std::string id, IdleRemoval how);
  // Errc::refused with what would be lost with it, or when that cannot be told.
  awaitable<result<void>> refuse_unpulled(std::string id);
  // Finishes removals whose process has died; those that are going on are left alone. Returns how
  // many there are.
  std::size_t reclaim(bool dry_run);

  // Returns when every record that is written in the background is written.
  awaitable<void> settled();

  std::filesystem::path directory(const std::string& id) const { return root_ / id; }
  std::int64_t now() const;                                        // seconds since 1970
  protocol::wire::SandboxInfo info(const Sandbox& sandbox) const;  // without holders and waiting

 private:
  struct Entry;
  using Entries = std::map<std::string, std::shared_ptr<Entry>>;

  std::shared_ptr<Entry> entry(const std::string& id) const;
  // Whether a supervisor ever ran there, which is who puts work into it.
  bool may_hold_work(const std::string& id) const;
  result<void> make_directories(const Sandbox& sandbox) const;
  awaitable<result<void>> shut_down(std::string id);
  awaitable<result<void>> remove_now(std::string id, std::shared_ptr<Entry> entry);
  awaitable<result<void>> remove_idle_now(std::string id, std::shared_ptr<Entry> entry,
                                          IdleRemoval how);
  // What would be lost with it, for people; empty: nothing.
  awaitable<result<std::string>> unpulled(std::string id);
  // The end of a removal: the directory, then the record.
  awaitable<result<void>> forget(std::string id, std::shared_ptr<Entry> entry);
  // Moves a directory out of the way, and deletes it in the background.
  result<void> discard(const std::filesystem::path& directory);
  void remove_in_background(std::filesystem::path staged);
  void save_later(const Sandbox& sandbox);

  protocol::os::executor ex_;
  const protocol::os::Clock& clock_;
  std::filesystem::path root_;
  std::filesystem::path removing_;
  Store& store_;
  Supervisors& supervisors_;
  Entries entries_;
  std::size_t saving_ = 0;
  protocol::os::Wakeup saved_;
  std::unique_ptr<boost::asio::thread_pool> deleters_;
  std::unique_ptr<boost::asio::thread_pool> measurers_;
  // What is being deleted now.
  std::shared_ptr<std::set<std::filesystem::path>> deleting_ =
      std::make_shared<std::set<std::filesystem::path>>();
};

bool is_sandbox_id(const std::string& id);  // 32 lower-case hex digits

}  // namespace agent

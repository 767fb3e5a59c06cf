// A work tree's end of sync without git: snapshots are numbered, packs are texts, merges are
// recorded.
#pragma once

#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "protocol/os/signals.h"
#include "protocol/sync/origin.h"

namespace test {

class FakeOrigin : public protocol::sync::Origin {
 public:
  template <class T>
  using result = protocol::wire::result<T>;

  std::string id() const override { return std::string(32, 'a'); }
  result<protocol::sync::Snapshot> snapshot() override {
    if (fail_snapshot)
      return protocol::wire::Failure(protocol::wire::Errc::no_space, "/work: no space left");
    protocol::sync::Snapshot snapshot;
    snapshot.sync.snapshot = "snapshot" + std::to_string(++snapshots);
    happened.push_back(snapshot.sync.snapshot);
    return snapshot;
  }
  std::string base(const std::string&) override { return bases; }
  std::string merged(const std::string&) override { return last_merged; }
  result<void> set_base(const std::string&, const std::string& commit) override {
    bases = commit;
    return {};
  }
  void forget(const std::string&) override { bases.clear(); }
  std::vector<std::string> sandboxes() override { return {}; }
  result<void> write_pack(const protocol::sync::Snapshot& snapshot,
                          const std::vector<std::string>& haves, protocol::os::Fd out) override {
    protocol::os::ignore_sigpipe();  // as the programs do
    std::string text = pack_bytes == 0 ? "pack of " + snapshot.sync.snapshot +
                                             (haves.empty() ? "" : " on " + haves.front())
                                       : std::string(pack_bytes, 'p');
    for (std::string_view left = text; !left.empty();) {
      ssize_t count = ::write(out.get(), left.data(), left.size());
      if (count < 0) return protocol::wire::Failure(protocol::wire::Errc::gone, "reader gone");
      left.remove_prefix(static_cast<std::size_t>(count));
    }
    if (fail_pack) return protocol::wire::Failure(protocol::wire::Errc::io, "object missing");
    return {};
  }
  result<void> read_pack(protocol::os::Fd in, std::uint64_t,
                         const std::vector<std::string>& shallow) override {
    std::string text;
    char buffer[4096];
    for (ssize_t count = 0; (count = ::read(in.get(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<std::size_t>(count));
    }
    if (refuse_pack)
      return protocol::wire::Failure(protocol::wire::Errc::bad_input, "the pack is damaged");
    if (lacks_base && shallow.empty())
      return protocol::wire::Failure(protocol::wire::Errc::not_found, "the base is not here");
    happened.push_back("read " + std::to_string(text.size()));
    return {};
  }
  result<protocol::sync::MergeReport> merge(const std::string&,
                                            const protocol::wire::Result& theirs) override {
    happened.push_back("merge " + theirs.result);
    last_merged = theirs.result;
    return report;
  }
  result<protocol::sync::MergeReport> merge_unwritten(const std::string&) override {
    return unwritten;
  }

  std::vector<std::string> happened;
  std::string bases, last_merged;
  protocol::sync::MergeReport report, unwritten;
  std::size_t pack_bytes = 0;
  int snapshots = 0;
  bool fail_snapshot = false, fail_pack = false, refuse_pack = false;
  bool lacks_base = false;  // until a whole pack comes
};

}  // namespace test

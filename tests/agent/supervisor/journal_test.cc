#include "agent/supervisor/journal.h"

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

using namespace agent::supervisor;
using protocol::wire::Errc;
using protocol::wire::FrameKind;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

struct Fixture {
  test::TemporaryDirectory directory;
  test::Loop loop;
  std::filesystem::path file = directory / "job.log";
  wire::JobInfo job;
  std::optional<Journal> journal;

  void make(JournalLimits limits = {}) { journal.emplace(loop.executor(), file, job, limits); }
  ~Fixture() {
    journal.reset();
    loop.settle();
  }
};

// Everything up to the end, in order: "o" or "e" before each stream's bytes.
os::awaitable<std::string> read_all(JournalReader& reader) {
  std::string all;
  char last = 0;
  for (;;) {
    auto item = co_await reader.next();
    if (!item) co_return all;
    if (item->forgotten > 0) {
      all += "<forgotten>";
      last = 0;
      continue;
    }
    char kind = item->kind == FrameKind::output ? 'o' : 'e';
    if (kind != last) all += std::string(1, kind) + ":";
    last = kind;
    all += item->bytes;
  }
}

os::awaitable<void> note(os::awaitable<std::optional<JournalReader::Item>> work, bool& done) {
  auto item = co_await std::move(work);
  (void)item;
  done = true;
}

}  // namespace

TEST_CASE("a reader gets both streams in the order they were written, then the status") {
  Fixture f;
  f.make();
  f.journal->append(FrameKind::output, "one");
  f.journal->append(FrameKind::error, "two");
  f.journal->append(FrameKind::output, "three");
  wire::Exited exited;
  exited.status = 7;
  exited.leftovers = {"sleep (pid 12)"};
  f.journal->finish(exited);
  auto reader = f.journal->read(false);
  CHECK(f.loop.run(read_all(reader)) == "o:onee:twoo:three");
  REQUIRE(reader.exited());
  CHECK(reader.exited()->status == 7);
  CHECK(reader.exited()->leftovers == exited.leftovers);
}

TEST_CASE("a reader that came early waits for what comes, and one that came late misses nothing") {
  Fixture f;
  f.make();
  auto early = f.journal->read(true);
  f.journal->append(FrameKind::output, "a");
  bool first = false, second = false;
  f.loop.start(note(early.next(), first));
  f.loop.settle();
  CHECK(first);
  f.loop.start(note(early.next(), second));
  f.loop.settle();
  CHECK_FALSE(second);
  f.journal->append(FrameKind::output, "b");
  f.loop.settle();
  CHECK(second);
  auto late = f.journal->read(false);
  f.journal->finish({});
  CHECK(f.loop.run(read_all(late)) == "o:ab");
}

TEST_CASE("more than memory holds is read from the file") {
  Fixture f;
  JournalLimits limits;
  limits.memory = 1000;
  f.make(limits);
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    std::string piece = std::to_string(i) + ",";
    f.journal->append(FrameKind::output, piece);
    all += piece;
  }
  f.journal->finish({});
  auto reader = f.journal->read(false);
  CHECK(f.loop.run(read_all(reader)) == "o:" + all);
  CHECK(reader.exited());
}

TEST_CASE("a journal outlives its writer and is read from the disk") {
  Fixture f;
  f.make();
  f.journal->append(FrameKind::output, "kept");
  wire::Exited exited;
  exited.signal = "KILL";
  f.journal->finish(exited);
  f.journal.reset();
  auto reader = JournalReader::open(f.loop.executor(), f.file);
  REQUIRE(reader);
  CHECK(f.loop.run(read_all(*reader)) == "o:kept");
  REQUIRE(reader->exited());
  CHECK(reader->exited()->signal == "KILL");
}

TEST_CASE("a journal cut at any byte gives what is whole, and no status that was not written") {
  Fixture f;
  f.make();
  f.journal->append(FrameKind::output, "first");
  f.journal->append(FrameKind::error, "second");
  f.journal->finish({});
  f.journal.reset();
  std::ifstream in(f.file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    auto cut = f.directory / "cut.log";
    std::ofstream(cut, std::ios::binary | std::ios::trunc) << bytes.substr(0, size);
    auto reader = JournalReader::open(f.loop.executor(), cut);
    if (!reader) {
      CHECK(reader.error().code == Errc::bad_input);
      continue;
    }
    std::string read = f.loop.run(read_all(*reader));
    CHECK(std::string("o:firste:second").starts_with(read));
    CHECK(reader->exited().has_value() == (size == bytes.size()));
  }
}

TEST_CASE("a damaged journal ends, whatever byte is damaged") {
  Fixture f;
  f.make();
  f.journal->append(FrameKind::output, "first");
  f.journal->append(FrameKind::error, "second");
  f.journal->finish({});
  f.journal.reset();
  std::ifstream in(f.file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    auto file = f.directory / "damaged.log";
    std::ofstream(file, std::ios::binary | std::ios::trunc) << damaged;
    auto reader = JournalReader::open(f.loop.executor(), file);
    if (reader) f.loop.run(read_all(*reader));
  }
}

TEST_CASE("what is no journal is refused, and a missing one not found") {
  Fixture f;
  std::ofstream(f.file) << "some other log file, long enough";
  CHECK(JournalReader::open(f.loop.executor(), f.file).error().code == Errc::bad_input);
  CHECK(JournalReader::open(f.loop.executor(), f.directory / "none").error().code ==
        Errc::not_found);
}

TEST_CASE("beyond the limit the oldest output is forgotten, and a reader is told how much") {
  Fixture f;
  JournalLimits limits;
  limits.memory = 64 * 1024;
  limits.file = 4 << 20;
  f.make(limits);
  auto slow = f.journal->read(false);
  std::string piece(32 * 1024, 'x');
  for (int i = 0; i < 400; ++i) f.journal->append(FrameKind::output, piece);  // 12.5 MiB
  f.journal->append(FrameKind::output, "the end");
  f.journal->finish({});
  for (JournalReader* reader : {&slow}) {
    std::string all = f.loop.run(read_all(*reader));
    CHECK(all.starts_with("<forgotten>"));
    CHECK(all.ends_with("the end"));
    CHECK(all.size() > (2 << 20));
    CHECK(all.size() <= (4 << 20) + 100);
  }
  f.journal.reset();
  auto again = JournalReader::open(f.loop.executor(), f.file);
  REQUIRE(again);
  std::string all = f.loop.run(read_all(*again));
  CHECK(all.starts_with("<forgotten>"));
  CHECK(all.ends_with("the end"));
}

TEST_CASE("without a file the newest output is still there") {
  Fixture f;
  f.file = "/nonexistent/job.log";
  JournalLimits limits;
  limits.memory = 64 * 1024;
  f.make(limits);
  CHECK(f.journal->lost());
  auto live = f.journal->read(true);
  f.journal->append(FrameKind::output, "hello");
  f.journal->finish({});
  CHECK(f.loop.run(read_all(live)) == "o:hello");
  CHECK(live.exited());
}

TEST_CASE("a paced reader holds up the writer, and only while it is there") {
  Fixture f;
  f.make();
  std::string piece(32 * 1024, 'x');
  auto unpaced = f.journal->read(false);
  CHECK(f.journal->lag() == 0);
  {
    auto paced = f.journal->read(true);
    while (f.journal->lag() <= Journal::kMaxLag) f.journal->append(FrameKind::output, piece);
    bool free = false;
    f.loop.start([](Journal& j, bool& done) -> os::awaitable<void> {
      co_await j.caught_up();
      done = true;
    }(*f.journal, free));
    f.loop.settle();
    CHECK_FALSE(free);
    f.loop.run(paced.next());
    f.loop.run(paced.next());
    f.loop.settle();
    CHECK(free);
    f.journal->append(FrameKind::output, piece);
    f.journal->append(FrameKind::output, piece);
    CHECK(f.journal->lag() > Journal::kMaxLag);
  }
  CHECK(f.journal->lag() == 0);
}

TEST_CASE("stopping a reader, or losing the journal, ends its waiting") {
  Fixture f;
  f.make();
  auto reader = f.journal->read(false);
  bool done = false;
  f.loop.start(note(reader.next(), done));
  f.loop.settle();
  CHECK_FALSE(done);
  SECTION("stop") { reader.stop(); }
  SECTION("the journal goes") { f.journal.reset(); }
  f.loop.settle();
  CHECK(done);
}

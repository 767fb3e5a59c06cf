// The private store: packs that come in are checked before any of their objects count, objects and
// refs are what was put there, and git's settings elsewhere do not matter.

#include "protocol/sync/object_store.h"

#include "protocol/sync/object_id.h"
#include "protocol/sync/object_writer.h"
#include "tests/integration/sync/two_ends.h"

using namespace sync_test;
using sync::BlobReader;
using sync::ImportLimits;
using sync::ObjectStore;
using sync::ObjectWriter;
using wire::Errc;

namespace {

ObjectStore open_store(const fs::path& directory, const std::string& format = "sha1") {
  ObjectStore::Options options;
  options.directory = directory;
  options.object_format = format;
  return must(ObjectStore::open(must(sync::Git::find("git")), options));
}

os::Fd reading(const Scratch& scratch, const std::string& bytes) {
  fs::path file = scratch / "sent";
  write_file(file, bytes);
  return os::Fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
}

std::string packed(const ObjectStore& store, const std::vector<std::string>& tips,
                   const std::vector<std::string>& haves = {},
                   const std::vector<std::string>& shallow = {}) {
  auto pipe = must(os::make_pipe());
  result<void> written;
  std::thread writer([&, out = std::move(pipe.write)]() mutable {
    written = store.write_pack(tips, haves, shallow, std::move(out));
  });
  std::string bytes;
  char chunk[4096];
  for (ssize_t count; (count = ::read(pipe.read.get(), chunk, sizeof chunk)) > 0;)
    bytes.append(chunk, static_cast<std::size_t>(count));
  writer.join();
  must(std::move(written));
  return bytes;
}

std::string commit_of(ObjectStore& store, const std::string& content,
                      const std::vector<std::string>& parents = {}) {
  ObjectWriter writer(store);
  auto blob = must(writer.blob(std::string_view(content)));
  auto tree = must(writer.tree("", {{"file", 0100644, blob}, {"dir/same", 0100644, blob}}));
  auto commit = must(writer.commit(tree, parents, "message"));
  must(writer.finish());
  return commit;
}

// A commit whose tree is given by its raw bytes, written past all checks.
std::string raw_commit(const ObjectStore& store, const std::string& tree_bytes) {
  auto git = store.git().with_config("core.protectNTFS=false").with_config("core.protectHFS=false");
  auto tree =
      must(git.out({"hash-object", "-t", "tree", "-w", "--literally", "--stdin"}, tree_bytes));
  tree.pop_back();
  return must(store.write_commit(tree, {}, ""));
}

std::string tree_entry(const std::string& mode, const std::string& name, const std::string& oid) {
  std::string entry = mode + " " + name + '\0';
  for (std::size_t i = 0; i < oid.size(); i += 2)
    entry += static_cast<char>(std::stoi(oid.substr(i, 2), nullptr, 16));
  return entry;
}

bool is_clean(const ObjectStore& store) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(store.directory() / "tmp", error))
    if (entry.path().filename().native().starts_with("incoming")) return false;
  return true;
}

}  // namespace

TEST_CASE("a pack brings its objects, thin ones too") {
  Scratch scratch;
  std::string format = GENERATE("sha1", "sha256");
  ObjectStore from = open_store(scratch / "from", format), to = open_store(scratch / "to", format);
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "line " + std::to_string(i) + "\n";
  std::string first = commit_of(from, text);
  std::string second = commit_of(from, text + "more\n", {first});
  must(to.read_pack(reading(scratch, packed(from, {first})), {}));
  CHECK(to.is_complete(first));
  std::string thin = packed(from, {second}, {first});
  CHECK(thin.size() < 1500);
  must(to.read_pack(reading(scratch, thin), {}));
  CHECK(to.is_complete(second));
  CHECK(packed(from, {second}, {second}).empty());
  CHECK(packed(from, {first}, {second}).empty());
  SECTION("bases that are not here are passed over") {
    std::string unknown(from.oid_digits(), 'a');
    CHECK(packed(from, {second}, {unknown, first}).size() == thin.size());
  }
  SECTION("nothing at all is fine") { must(to.read_pack(reading(scratch, ""), {})); }
  SECTION("history may end") {
    ObjectStore short_one = open_store(scratch / "short", format);
    must(short_one.read_pack(reading(scratch, packed(from, {second}, {}, {second})), {second}));
    CHECK(short_one.is_complete(second));
    CHECK_FALSE(short_one.has(first));
    CHECK(short_one.shallow() == std::vector<std::string>{second});
  }
}

TEST_CASE("a pack that is cut or changed anywhere leaves nothing behind") {
  Scratch scratch;
  ObjectStore from = open_store(scratch / "from"), to = open_store(scratch / "to");
  std::string commit = commit_of(from, "content\n");
  std::string good = packed(from, {commit});
  for (std::size_t size = 1; size < good.size(); size += 1 + good.size() / 25) {
    auto read = to.read_pack(reading(scratch, good.substr(0, size)), {});
    REQUIRE_FALSE(read);
    CHECK(read.error().code == Errc::bad_input);
  }
  for (std::size_t at = 0; at < good.size(); at += 1 + good.size() / 25) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x41);
    auto read = to.read_pack(reading(scratch, bad), {});
    REQUIRE_FALSE(read);
  }
  CHECK_FALSE(to.read_pack(reading(scratch, "<html>not a pack</html>"), {}));
  CHECK_FALSE(to.has(commit));
  CHECK(is_clean(to));
  CHECK(fs::is_empty(to.objects() / "pack"));
  must(to.read_pack(reading(scratch, good), {}));
  CHECK(to.is_complete(commit));
}

TEST_CASE("a pack that leaves out what it needs is refused") {
  Scratch scratch;
  ObjectStore from = open_store(scratch / "from"), to = open_store(scratch / "to");
  std::string first = commit_of(from, "one\n"), second = commit_of(from, "two\n", {first});
  auto missing_base = to.read_pack(reading(scratch, packed(from, {second}, {first})), {});
  REQUIRE_FALSE(missing_base);
  CHECK(missing_base.error().code == Errc::bad_input);
  CHECK_FALSE(to.has(second));
  auto no_past = to.read_pack(reading(scratch, packed(from, {second}, {}, {second})), {});
  REQUIRE_FALSE(no_past);
  CHECK_FALSE(to.has(second));
}

TEST_CASE("a pack costs no more than it may") {
  Scratch scratch;
  ObjectStore from = open_store(scratch / "from"), to = open_store(scratch / "to");
  std::string commit = commit_of(from, std::string(50 << 20, '\0'));  // a few kilobytes when packed
  std::string bytes = packed(from, {commit});
  CHECK(bytes.size() < (1 << 20));
  ImportLimits limits;
  SECTION("in bytes") { limits.bytes = 1000; }
  SECTION("in objects") { limits.objects = 2; }
  SECTION("in what they expand to") { limits.expanded_bytes = 10 << 20; }
  SECTION("in one object") { limits.object_bytes = 10 << 20; }
  auto read = to.read_pack(reading(scratch, bytes), {}, limits);
  REQUIRE_FALSE(read);
  CHECK(read.error().code == Errc::too_large);
  CHECK_FALSE(to.has(commit));
  CHECK(is_clean(to));
  must(to.read_pack(reading(scratch, bytes), {}));
}

TEST_CASE("trees that could do harm do not come in") {
  Scratch scratch;
  ObjectStore from = open_store(scratch / "from"), to = open_store(scratch / "to");
  std::string blob = must(from.write_blob(std::string_view("x")));
  std::vector<std::string> bad{
      tree_entry("100644", ".git", blob),
      tree_entry("100644", ".GIT", blob),
      tree_entry("100644", ".g\xe2\x80\x8cit", blob),
      tree_entry("100644", "git~1", blob),
      tree_entry("100644", "..", blob),
      tree_entry("100644", ".", blob),
      tree_entry("100644", "a/b", blob),
      tree_entry("100644", "", blob),
      tree_entry("100644", "a", blob) + tree_entry("100644", "a", blob),
      tree_entry("100644", "b", blob) + tree_entry("100644", "a", blob),
      tree_entry("100644", "a", std::string(40, '0')),
      tree_entry("120000", ".gitmodules", blob),
      tree_entry("100644", "a", std::string(40, '7')),
  };
  for (std::size_t i = 0; i < bad.size(); ++i) {
    INFO(i);
    std::string commit = raw_commit(from, bad[i]);
    auto output = from.git().run({"pack-objects", "--stdout", "-q"},
                                 commit + "\n" + must(from.tree_of(commit)) + "\n" + blob + "\n");
    REQUIRE(output);
    auto read = to.read_pack(reading(scratch, output->out), {});
    REQUIRE_FALSE(read);
    CHECK(read.error().code == Errc::bad_input);
    CHECK_FALSE(to.has(commit));
  }
  SECTION("but old history with odd dates and names does") {
    auto tree = must(from.write_commit(from.empty_tree(), {}, ""));
    std::string odd = "tree " + from.empty_tree() +
                      "\nauthor <a@b> 0 +051800\ncommitter x x@y> 99999999999999999999 +0000\n\n";
    auto written =
        from.git().out({"hash-object", "-t", "commit", "-w", "--literally", "--stdin"}, odd);
    std::string commit = must(std::move(written));
    commit.pop_back();
    auto output = from.git().run({"pack-objects", "--stdout", "-q"},
                                 commit + "\n" + from.empty_tree() + "\n");
    REQUIRE(output);
    auto read = to.read_pack(reading(scratch, output->out), {});
    if (!read) INFO(read.error().what);
    CHECK(read);
  }
}

TEST_CASE("a tree that names itself over and over is not listed") {
  // Ten levels of ten names for one tree: 10^10 paths in a few hundred bytes.
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  ObjectWriter writer(store);
  auto blob = must(writer.blob(std::string_view("x")));
  std::vector<sync::TreeChange> files;
  for (int i = 0; i < 10; ++i) files.push_back({"f" + std::to_string(i), 0100644, blob});
  std::string tree = must(writer.tree("", files));
  must(writer.finish());
  for (int level = 0; level < 9; ++level) {
    std::string bytes;
    for (int i = 0; i < 10; ++i) bytes += tree_entry("40000", "d" + std::to_string(i), tree);
    tree = must(store.git().out({"hash-object", "-t", "tree", "-w", "--stdin"}, bytes));
    tree.pop_back();
  }
  auto listed = store.list_tree(tree);
  REQUIRE_FALSE(listed);
  CHECK(listed.error().code == Errc::too_large);
}

TEST_CASE("a reader that goes away ends the pack") {
  Scratch scratch;
  ObjectStore from = open_store(scratch / "from");
  std::string noise;
  unsigned state = 1;
  for (int i = 0; i < (4 << 20); ++i)
    noise += static_cast<char>((state = state * 1103515245 + 12345) >> 16);
  std::string commit = commit_of(from, noise);
  auto pipe = must(os::make_pipe());
  pipe.read.reset();
  auto written = from.write_pack({commit}, {}, {}, std::move(pipe.write));
  REQUIRE_FALSE(written);
  CHECK(written.error().code == Errc::gone);
  auto missing = from.write_pack({std::string(40, 'a')}, {}, {}, must(os::make_pipe()).write);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == Errc::not_found);
}

TEST_CASE("objects from somebody else's directory are checked as a pack is") {
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  std::string base = commit_of(store, "base\n");
  must(store.set_ref("refs/snapshots/x", base));
  ObjectStore theirs = open_store(scratch / "theirs");
  must(theirs.read_pack(reading(scratch, packed(store, {base})), {}));
  std::string made = commit_of(theirs, "made there\n", {base});
  SECTION("sound ones are kept") {
    must(store.adopt(theirs.objects(), {made}));
    CHECK(store.is_complete(made));
  }
  SECTION("others are not") {
    std::string blob = must(theirs.write_blob(std::string_view("x")));
    std::string bad = raw_commit(theirs, tree_entry("100644", ".git", blob));
    CHECK_FALSE(store.adopt(theirs.objects(), {bad}));
    CHECK_FALSE(store.has(bad));
    CHECK_FALSE(store.adopt(theirs.objects(), {std::string(40, 'a')}));
    CHECK_FALSE(store.adopt(theirs.objects(), {"--output=x"}));
  }
}

TEST_CASE("blobs are read in any order, whatever was expected") {
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  ObjectWriter writer(store);
  std::vector<std::string> contents, oids;
  for (int i = 0; i < 300; ++i) {
    contents.push_back(
        std::string(static_cast<std::size_t>(i) * 97, static_cast<char>('a' + i % 26)));
    oids.push_back(must(writer.blob(std::string_view(contents.back()))));
  }
  auto tree = must(writer.tree("", {{"x", 0100644, oids[0]}}));
  must(writer.finish());
  BlobReader reader = store.blob_reader();
  SECTION("as expected") { reader.expect(oids); }
  SECTION("not at all") {}
  SECTION("the other way round") {
    auto reversed = oids;
    std::reverse(reversed.begin(), reversed.end());
    reader.expect(reversed);
  }
  SECTION("with others between, some of them missing or no blobs") {
    std::vector<std::string> mixed;
    for (const std::string& oid : oids) {
      mixed.push_back(std::string(40, 'd'));
      mixed.push_back(oid);
      mixed.push_back(tree);
      mixed.push_back("not an id");
    }
    reader.expect(mixed);
  }
  for (std::size_t i = 0; i < oids.size(); ++i)
    REQUIRE(must(reader.read_all(oids[i], 1 << 20)) == contents[i]);
  CHECK(reader.read_all(std::string(40, 'e'), 10).error().code == Errc::not_found);
  CHECK(reader.read_all(tree, 1000).error().code == Errc::bad_input);
  CHECK(reader.read_all(oids[200], 10).error().code == Errc::too_large);
  CHECK(reader.read_all("x\n", 10).error().code == Errc::bad_input);
  CHECK(must(reader.read_all(oids[7], 1 << 20)) == contents[7]);
}

TEST_CASE("text is merged, what conflicts or is not text is not") {
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  auto blob = [&](const std::string& text) {
    return must(store.write_blob(std::string_view(text)));
  };
  std::string base = blob("a\nb\nc\nd\ne\n");
  auto merged = must(store.merge_file(base, blob("A\nb\nc\nd\ne\n"), blob("a\nb\nc\nd\nE\n")));
  REQUIRE(merged);
  CHECK(must(store.blob_reader().read_all(*merged, 100)) == "A\nb\nc\nd\nE\n");
  CHECK_FALSE(must(store.merge_file(base, blob("A\nb\nc\nd\ne\n"), blob("X\nb\nc\nd\ne\n"))));
  CHECK_FALSE(must(store.merge_file("", blob("one\n"), blob("two\n"))));
  CHECK_FALSE(must(store.merge_file(base, blob(std::string("\0a", 2)), blob("x\n"))));
  auto crlf = must(store.merge_file(blob("a\r\nb\r\nc\r\nd\r\n"), blob("A\r\nb\r\nc\r\nd\r\n"),
                                    blob("a\r\nb\r\nc\r\nD\r\n")));
  REQUIRE(crlf);
  CHECK(must(store.blob_reader().read_all(*crlf, 100)) == "A\r\nb\r\nc\r\nD\r\n");
  CHECK_FALSE(store.merge_file(base, std::string(40, 'a'), base));
}

TEST_CASE("refs are what was put there, and only refs") {
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  std::string commit = commit_of(store, "x");
  must(store.set_ref("refs/a/b/c", commit));
  must(store.set_ref("refs/a/d", commit));
  CHECK(store.get_ref("refs/a/b/c") == commit);
  CHECK(store.list_refs("refs/a/").size() == 2);
  CHECK(must(store.git().out({"rev-parse", "refs/a/b/c"})).substr(0, 40) == commit);
  store.delete_ref("refs/a/b/c");
  CHECK(store.get_ref("refs/a/b/c").empty());
  must(store.set_ref("refs/a/b", commit));  // its directory went with it
  for (const char* name : {"HEAD", "config", "refs/../config", "refs/a/../../x", "refs/", "refs//x",
                           "/etc/x", "refs/x.lock", "refs/a b", ""}) {
    CHECK_FALSE(store.set_ref(name, commit));
    CHECK(store.get_ref(name).empty());
    store.delete_ref(name);
  }
  CHECK_FALSE(store.set_ref("refs/x", "not an id"));
  CHECK(fs::exists(store.directory() / "config"));
}

TEST_CASE("tidying keeps what a ref reaches") {
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  std::string commit;
  for (int i = 0; i < 5; ++i) {
    commit =
        commit_of(store, std::to_string(i),
                  commit.empty() ? std::vector<std::string>{} : std::vector<std::string>{commit});
    must(store.set_ref("refs/x", commit));
  }
  must(store.tidy());
  CHECK(store.is_complete(commit));
  CHECK(store.clutter() <= 1);
}

TEST_CASE("a store of another format, or something else, is not touched") {
  Scratch scratch;
  { open_store(scratch / "store", "sha256"); }
  auto git = must(sync::Git::find("git"));
  ObjectStore::Options options;
  options.directory = scratch / "store";
  auto other = ObjectStore::open(git, options);
  REQUIRE_FALSE(other);
  CHECK(other.error().code == Errc::bad_input);
  CHECK(open_store(scratch / "store", "sha256").object_format() == "sha256");
  SECTION("unless it is only a cache") {
    options.cache = true;
    CHECK(must(ObjectStore::open(git, options)).object_format() == "sha1");
  }
}

TEST_CASE("a writer and a commit by itself make the same commit") {
  Scratch scratch;
  ObjectStore store = open_store(scratch / "store");
  std::string parent = commit_of(store, "parent");
  ObjectWriter writer(store);
  auto blob = must(writer.blob(std::string_view("x")));
  auto tree =
      must(writer.tree(must(store.tree_of(parent)),
                       {{"dir/same", 0, ""}, {"file", 0, ""}, {"file/now/deep", 0120000, blob}}));
  auto commit = must(writer.commit(tree, {parent}, "with\nlines \xff"));
  auto child = must(writer.commit(tree, {commit, parent}, ""));
  auto nothing = must(writer.tree(tree, {{"file/now/deep", 0, ""}}));
  must(writer.finish());
  CHECK(nothing == store.empty_tree());
  CHECK(must(store.write_commit(tree, {parent}, "with\nlines \xff")) == commit);
  auto read = must(store.read_commit(child));
  CHECK(read.parents == std::vector<std::string>{commit, parent});
  CHECK(must(store.list_tree(tree)).size() == 1);
  CHECK(sync::blob_id("sha1", "x") == blob);
  SECTION("an object that is not there is an error, and the writer can start over") {
    ObjectWriter broken(store);
    auto lost = broken.tree("", {{"x", 0100644, std::string(40, 'a')}});
    REQUIRE_FALSE(lost);
    CHECK(lost.error().code == Errc::not_found);
    CHECK(broken.failed());
    CHECK_FALSE(broken.blob(std::string_view("y")));
    broken.restart();
    CHECK(broken.blob(std::string_view("y")));
    must(broken.finish());
    for (const auto& entry : fs::directory_iterator(store.directory()))
      CHECK(entry.path().filename().native().find("crash") == std::string::npos);
  }
}

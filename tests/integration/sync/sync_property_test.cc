// Random pairs of trees, edited on both sides and synced both ways, against a model of a few lines.
// A failing seed prints itself; SANDBOX_SEED=<n> runs that one alone.

#include <algorithm>
#include <random>

#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr int kSeeds = 50;  // which thread does what is the same for every tree
#else
constexpr int kSeeds = 500;
#endif
constexpr int kParts = 10;

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed * 0x9E3779B97F4A7C15u + 1) {}
  std::size_t below(std::size_t n) { return random_() % n; }
  bool one_in(std::size_t n) { return below(n) == 0; }
  template <class T>
  const T& any(const std::vector<T>& values) {
    return values[below(values.size())];
  }

 private:
  std::mt19937_64 random_;
};

// No two of them fold to one name.
const std::vector<std::string> kNames = {"a",
                                         "b",
                                         "with space",
                                         "quo\"te",
                                         "it's",
                                         "new\nline",
                                         "\xff\xfe bytes",
                                         "tab\there",
                                         "-dash",
                                         "\xc3\xbc"
                                         "ber",
                                         "*star",
                                         "[x]",
                                         "back\\slash",
                                         ":colon",
                                         "$(x)",
                                         ".hidden",
                                         "c.txt",
                                         "#hash",
                                         "!bang",
                                         "trail ",
                                         "\x01\x7f",
                                         "~tilde",
                                         "%25",
                                         "{b,c}",
                                         "git",
                                         "dir",
                                         "\xe2\x98\x83"};

std::string random_path(Dice& dice) {
  std::string path = dice.any(kNames);
  for (std::size_t depth = dice.below(3); depth > 0; --depth) path += "/" + dice.any(kNames);
  return path;
}

Node random_node(Dice& dice) {
  Node node;
  node.kind = dice.one_in(8)   ? Node::Kind::link
              : dice.one_in(5) ? Node::Kind::program
                               : Node::Kind::file;
  if (node.kind == Node::Kind::link) {
    node.bytes = dice.one_in(3) ? "/nonexistent/outside" : "../" + dice.any(kNames);
    return node;
  }
  if (dice.one_in(8)) return node;  // empty
  node.bytes = "value " + std::to_string(dice.below(1000));
  if (dice.one_in(3)) node.bytes += "\r\n";
  if (dice.one_in(4)) node.bytes += std::string("\0\xff binary", 9);
  if (dice.one_in(20)) node.bytes.append(dice.below(200'000), 'x');
  return node;
}

bool is_beneath(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

// The path has nothing above it that is a file, and nothing beneath it.
bool fits(const Tree& tree, const std::string& path) {
  return std::none_of(tree.begin(), tree.end(), [&](const auto& entry) {
    return is_beneath(path, entry.first) || is_beneath(entry.first, path);
  });
}

void add(Tree& tree, Dice& dice) {
  std::string path = random_path(dice);
  if (fits(tree, path)) tree[path] = random_node(dice);
}

void edit(Tree& tree, Dice& dice) {
  for (std::size_t edits = dice.below(8); edits > 0; --edits) {
    if (tree.empty() || dice.one_in(4)) {
      add(tree, dice);
      continue;
    }
    auto at = std::next(tree.begin(), static_cast<std::ptrdiff_t>(dice.below(tree.size())));
    switch (dice.below(6)) {
      case 0:
        tree.erase(at);
        break;
      case 1:  // only the mode
        if (at->second.kind == Node::Kind::file) {
          at->second.kind = Node::Kind::program;
        } else if (at->second.kind == Node::Kind::program) {
          at->second.kind = Node::Kind::file;
        }
        break;
      case 2: {  // a file becomes a directory
        std::string path = at->first;
        tree.erase(at);
        tree[path + "/" + dice.any(kNames)] = random_node(dice);
        break;
      }
      case 3: {  // a directory becomes a file
        std::size_t slash = at->first.find('/');
        if (slash == std::string::npos) break;
        std::string directory = at->first.substr(0, slash);
        std::erase_if(tree, [&](const auto& entry) { return is_beneath(entry.first, directory); });
        tree[directory] = random_node(dice);
        break;
      }
      default:
        at->second = random_node(dice);
    }
  }
}

// Turns what is on the disk into `to`, touching nothing else.
void carry_out(const fs::path& root, const Tree& from, const Tree& to) {
  for (const auto& [path, node] : from) {
    if (to.contains(path)) continue;
    fs::remove(root / path);
    for (fs::path up = (root / path).parent_path(); up != root && fs::is_empty(up);
         up = up.parent_path())
      fs::remove(up);
  }
  for (const auto& [path, node] : to) {
    auto before = from.find(path);
    if (before == from.end() || before->second != node) write_node(root, path, node);
  }
}

std::optional<Node> find(const Tree& tree, const std::string& path) {
  auto at = tree.find(path);
  return at == tree.end() ? std::nullopt : std::optional(at->second);
}

bool is_file(const std::optional<Node>& node) { return node && node->kind != Node::Kind::link; }

struct Merged {
  Tree tree;
  std::vector<std::string> conflicts;
};

// What the laptop holds after the pull. Every content is one line or binary, so that two edits of
// one file never merge.
Merged merge(const Tree& base, const Tree& theirs, const Tree& ours) {
  Merged merged{ours, {}};
  std::vector<std::pair<std::string, Node>> writes;
  std::map<std::string, bool> paths;
  for (const Tree* tree : {&base, &theirs})
    for (const auto& [path, node] : *tree) paths[path] = true;
  for (const auto& [path, unused] : paths) {
    auto b = find(base, path), t = find(theirs, path), o = find(ours, path);
    if (t == b || t == o) continue;
    if (o == b) {
      if (t) {
        writes.emplace_back(path, *t);
      } else {
        merged.tree.erase(path);
      }
      continue;
    }
    if (is_file(b) && is_file(t) && is_file(o)) {
      bool same = t->bytes == o->bytes;
      Node::Kind kind = t->kind == b->kind ? o->kind : t->kind;
      if (same || t->bytes == b->bytes) {
        merged.tree[path].kind = kind;
        continue;
      }
      if (o->bytes == b->bytes) {
        writes.emplace_back(path, Node{kind, t->bytes});
        continue;
      }
    } else if (!b && is_file(t) && is_file(o) && t->bytes == o->bytes) {
      merged.tree[path].kind = Node::Kind::program;
      continue;
    }
    merged.conflicts.push_back(path);
  }
  for (const auto& [path, node] : writes) {
    if (fits(merged.tree, path)) {
      merged.tree[path] = node;
    } else {
      merged.conflicts.push_back(path);
    }
  }
  std::sort(merged.conflicts.begin(), merged.conflicts.end());
  return merged;
}

std::string shown(const Tree& tree) {
  std::string text;
  for (const auto& [path, node] : tree) {
    text += (node.kind == Node::Kind::link      ? "l "
             : node.kind == Node::Kind::program ? "x "
                                                : "f ") +
            path + " = " + node.bytes.substr(0, 40) + "\n";
  }
  return text;
}

// Files that were not to change kept their time.
void check_times(const Tree& before, const Tree& after,
                 const std::map<std::string, std::int64_t>& times_before,
                 const std::map<std::string, std::int64_t>& times_after) {
  for (const auto& [path, node] : after) {
    auto was = before.find(path);
    if (was == before.end() || was->second != node) continue;
    INFO("untouched: " << path);
    CHECK(times_before.at(path) == times_after.at(path));
  }
}

void try_seed(std::uint64_t seed) {
  INFO("replay with SANDBOX_SEED=" << seed);
  Dice dice(seed);
  Scratch scratch;
  TwoEnds ends(scratch);
  Tree base;
  for (std::size_t files = dice.below(25); files > 0; --files) add(base, dice);
  carry_out(ends.laptop(), {}, base);
  if (dice.one_in(4)) {
    git_out(ends.laptop(), {"init", "-q", "-b", "main"});
    git_out(ends.laptop(), {"add", "-A"});
    if (dice.one_in(2)) {
      git_out(ends.laptop(), {"commit", "-q", "--allow-empty", "-m", "one"});
      Tree edited = base;
      edit(edited, dice);
      carry_out(ends.laptop(), base, edited);
      base = edited;
    }
  }
  ends.push();
  REQUIRE(shown(read_tree(ends.box())) == shown(base));

  Tree theirs = base, ours = base;
  edit(theirs, dice);
  edit(ours, dice);
  carry_out(ends.box(), base, theirs);
  carry_out(ends.laptop(), base, ours);
  INFO("base:\n" << shown(base) << "theirs:\n" << shown(theirs) << "ours:\n" << shown(ours));
  std::map<std::string, std::int64_t> before, after;
  REQUIRE(shown(read_tree(ends.laptop(), &before)) == shown(ours));

  Merged expected = merge(base, theirs, ours);
  auto report = ends.pull();
  std::vector<std::string> empty, conflicts;
  Tree pulled = read_tree(ends.laptop(), &after, &empty);
  CHECK(report.has_value() == (theirs != base));
  if (report) {
    for (const auto& conflict : report->conflicts) {
      conflicts.push_back(conflict.path);
      auto node = find(theirs, conflict.path);
      CHECK(conflict.saved.empty() == !node.has_value());
      if (node && node->kind != Node::Kind::link)
        CHECK(read_file(ends.laptop() / conflict.saved) == node->bytes);
    }
    std::sort(conflicts.begin(), conflicts.end());
    CHECK(report->refused.empty());
  }
  CHECK(conflicts == expected.conflicts);
  REQUIRE(shown(pulled) == shown(expected.tree));
  CHECK(pulled == expected.tree);
  CHECK(empty.empty());
  check_times(ours, pulled, before, after);

  before.clear();
  after.clear();
  read_tree(ends.box(), &before);
  ends.push();
  Tree pushed = read_tree(ends.box(), &after, &empty);
  REQUIRE(shown(pushed) == shown(pulled));
  CHECK(pushed == pulled);
  CHECK(empty.empty());
  check_times(theirs, pushed, before, after);
  CHECK_FALSE(ends.pull());
}

}  // namespace

// One test per part, so that ctest runs them beside each other.
TEMPLATE_TEST_CASE_SIG("random trees are the same on both ends after a sync both ways", "",
                       ((int part), part), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9) {
  if (const char* seed = std::getenv("SANDBOX_SEED")) {
    if (part == 0) try_seed(std::strtoull(seed, nullptr, 10));
    return;
  }
  for (int seed = part; seed < kSeeds; seed += kParts) try_seed(static_cast<std::uint64_t>(seed));
}

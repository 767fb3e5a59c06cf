#include "protocol/sync/path_rules.h"

#include <string>

#include "protocol/sync/name_fold.h"
#include "tests/support/catch.h"

using namespace protocol::sync;

TEST_CASE("ordinary paths may be written") {
  for (const char* path : {"a",
                           "src/main.cc",
                           ".github/workflows/ci.yml",
                           ".gitignore",
                           ".gitattributes",
                           "a.git/x",
                           "..a",
                           "...",
                           "git",
                           "dev-disk\\x2dby.mount",
                           "na\xC3\xAFve",
                           "\xFF\xFE",
                           "a\nb",
                           "it's",
                           ".gitfoo",
                           "git~a",
                           "git~",
                           "a:b",
                           "\xE2\x80\x8Bx",
                           ".sandbox.yml"}) {
    CAPTURE(path);
    CHECK(refuse_path(path).empty());
  }
}

TEST_CASE("a path that leaves the work tree is refused") {
  for (const char* path : {"../x", "a/../x", "a/..", "/etc/passwd", "//x", "a//b", "a/", "./a",
                           "a/.", "", "..", "."}) {
    CAPTURE(path);
    CHECK_FALSE(refuse_path(path).empty());
  }
  CHECK_FALSE(refuse_path(std::string_view("a\0b", 3)).empty());
}

TEST_CASE("every spelling of .git is refused, anywhere in a path") {
  for (const char* name : {".git",
                           ".GIT",
                           ".Git",
                           ".gIt",
                           ".git.",
                           ".git ",
                           ".git. . .",
                           ".git::$INDEX_ALLOCATION",
                           ".git:stream",
                           ".GIT .::$DATA",
                           "git~1",
                           "GIT~1",
                           "Git~2",
                           "git~1.",
                           "git~1::$INDEX_ALLOCATION",
                           ".g\xE2\x80\x8Cit",              // ZWNJ
                           ".g\xE2\x80\x8Dit",              // ZWJ
                           "\xE2\x80\xAA.git",              // LRE
                           ".git\xEF\xBB\xBF",              // BOM
                           ".g\xE2\x81\xAAi\xE2\x81\xAFt",  // 206A, 206F
                           "foo\\.git",
                           ".git\\hooks",
                           "..\\.GIT\\config",
                           "a\\git~1\\b"}) {
    CAPTURE(name);
    CHECK(is_git_name(name));
    CHECK_FALSE(refuse_path(name).empty());
    CHECK_FALSE(refuse_path(std::string(name) + "/hooks/post-checkout").empty());
    CHECK_FALSE(refuse_path(std::string("deep/down/") + name).empty());
  }
  for (const char* name :
       {".gitmodules", "agit", "xgit~1", "git", ".git~", ".gitx", ". git", ".gi t"}) {
    CAPTURE(name);
    CHECK_FALSE(is_git_name(name));
  }
}

TEST_CASE("names that only we make are refused") {
  CHECK_FALSE(refuse_path("a/b.sandbox-conflict").empty());
  CHECK_FALSE(refuse_path(".sandbox-tmp-0123456789abcdef").empty());
  CHECK(refuse_path("a.sandbox-conflicts").empty());
}

TEST_CASE("names fold as file systems fold them") {
  CHECK(fold_name("README") == fold_name("readme"));
  CHECK(fold_name("\xC3\x84") == fold_name("\xC3\xA4"));   // Ä ä
  CHECK(fold_name("\xC3\xA9") == fold_name("e\xCC\x81"));  // é composed, decomposed
  CHECK(fold_name("\xC3\x89") == fold_name("e\xCC\x81"));  // É
  CHECK(fold_name("\xD0\x96") == fold_name("\xD0\xB6"));   // Ж ж
  CHECK(fold_name("\xCE\xA3") == fold_name("\xCF\x82"));   // Σ, final ς
  CHECK(fold_name("\xE2\x84\xAA") == fold_name("k"));      // Kelvin sign
  CHECK(fold_name("\xEA\xB0\x81") == fold_name("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"));  // Hangul
  CHECK(fold_name("stra\xC3\x9F"
                  "e") == fold_name("STRASSE"));
  CHECK(fold_name("a\xE2\x80\x8C"
                  "b") == fold_name("ab"));
  CHECK(fold_name("e") != fold_name("\xC3\xA9"));
  CHECK(fold_name("\xFF") != fold_name("\xFE"));
  CHECK(fold_name("\xC3\xA9").size() == 3);
}

TEST_CASE("of two new names that fold to one neither is written") {
  NameSet names;
  names.add("Makefile");
  names.add("makefile");
  names.add("other");
  CHECK_FALSE(names.judge("Makefile").empty());
  CHECK_FALSE(names.judge("makefile").empty());
  CHECK(names.judge("other").empty());
}

TEST_CASE("a new name that folds to a known one is not written") {
  NameSet names;
  names.known("docs/README");
  names.add("docs/Readme");
  names.add("DOCS/new");
  names.add("docs/new");
  CHECK_FALSE(names.judge("docs/Readme").empty());
  CHECK_FALSE(names.judge("DOCS/new").empty());
  // Its directory is known, but its own name has a twin.
  CHECK_FALSE(names.judge("docs/new").empty());
}

TEST_CASE("names that fold to one and were both known do not stop others") {
  NameSet names;
  names.known("net/xt_MARK.c");
  names.known("net/xt_mark.c");
  names.known("Net/x");
  names.add("net/new.c");
  names.add("Net/newer.c");
  CHECK(names.judge("net/new.c").empty());
  CHECK(names.judge("Net/newer.c").empty());
}

TEST_CASE("a path through a file or link of the same set is not written") {
  NameSet names;
  names.add("link");
  names.add("link/passwd");
  names.add("Dir");
  names.add("dir/x");
  names.add("fine/x");
  for (const char* path : {"link", "link/passwd", "Dir", "dir/x"}) {
    CAPTURE(path);
    CHECK_FALSE(names.judge(path).empty());
  }
  CHECK(names.judge("fine/x").empty());
}

// How long a snapshot takes: `sync_bench [FILES]` makes a repository of so many files in a
// temporary directory and prints milliseconds. Built by hand (see CONTRIBUTING); not a test.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/sync/origin.h"

namespace fs = std::filesystem;
using protocol::sync::Origin;

namespace {

void git(const fs::path& directory, std::vector<std::string> args) {
  protocol::os::Spawn spawn;
  spawn.argv = {
      "git", "-c", "gc.auto=0", "-c", "user.name=bench", "-c", "user.email=bench@localhost"};
  spawn.argv.insert(spawn.argv.end(), args.begin(), args.end());
  spawn.cwd = directory;
  auto output = protocol::os::run(spawn);
  if (!output || !output->exit.ok()) std::abort();
}

void measure(const char* what, const std::function<void()>& work) {
  std::clock_t processor = std::clock();
  auto begin = std::chrono::steady_clock::now();
  work();
  std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - begin;
  std::printf("%-12s %8.1f ms, of the processor (without git) %8.1f ms\n", what, elapsed.count(),
              1000.0 * static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC);
}

}  // namespace

int main(int argc, char** argv) {
  int files = argc > 1 ? std::atoi(argv[1]) : 300;
  std::string scratch = fs::temp_directory_path() / "sync-bench-XXXXXX";
  if (!::mkdtemp(scratch.data())) return 1;
  fs::path root = fs::path(scratch) / "tree", store = fs::path(scratch) / "store";
  fs::create_directories(root);
  git(root, {"init", "-q", "-b", "main"});
  for (int i = 0; i < files; ++i) {
    fs::path directory = root / ("d" + std::to_string(i / 200)) / ("e" + std::to_string(i / 10));
    fs::create_directories(directory);
    std::ofstream out(directory / ("file" + std::to_string(i) + ".txt"));
    for (int line = 0; line < 60; ++line) out << "line " << line << " of file " << i << "\n";
  }
  git(root, {"add", "."});
  git(root, {"commit", "-q", "-m", "files"});
  std::string id;
  auto snapshot = [&] {
    auto origin = Origin::open({.work_tree = root, .store = store});
    if (!origin) std::abort();
    auto taken = (*origin)->snapshot();
    if (!taken) {
      std::fprintf(stderr, "%s\n", taken.error().what.c_str());
      std::exit(1);
    }
    id = taken->sync.snapshot;
  };
  std::printf("%d files\n", files);
  measure("first", snapshot);
  measure("second", snapshot);
  for (int i = 0; i < 3; ++i) measure("unchanged", snapshot);
  std::ofstream(root / "d0" / "e0" / "file0.txt", std::ios::app) << "changed\n";
  measure("one file", snapshot);
  measure("again", snapshot);
  std::ofstream(root / "d0" / "new.txt") << "new\n";
  measure("a new file", snapshot);
  measure("again", snapshot);
  git(root, {"add", "."});
  measure("staged", snapshot);
  git(root, {"commit", "-q", "-m", "more"});
  measure("committed", snapshot);
  for (int i = 0; i < 3; ++i) measure("unchanged", snapshot);
  fs::remove_all(scratch);
}

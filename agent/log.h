// The agent's log: one event, one line, key=value, on stderr. No command output, no environment, no
// keys. What peers cause is bounded: an event that comes too often is dropped and counted, and the
// count is told with the next line of that event that passes.
#pragma once

#include <chrono>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace agent::log {

using Fields = std::initializer_list<std::pair<std::string_view, std::string>>;

// What the operator needs to know; never caused by a peer at will.
void info(std::string_view event, Fields fields = {});
void warn(std::string_view event, Fields fields = {});
// What a peer can cause: at most kBurst lines of one event at once, then one per kRefill.
void peer(std::string_view event, Fields fields = {});

// `event key=value ...`; values with spaces, quotes or control bytes are quoted and escaped.
std::string line(std::string_view event, Fields fields);

// The bound itself, apart from any clock.
class Limiter {
 public:
  using time_point = std::chrono::steady_clock::time_point;
  static constexpr int kBurst = 20;
  static constexpr std::chrono::seconds kRefill{1};
  static constexpr std::size_t kMaxEvents = 64;  // distinct events; more share one bucket

  struct Answer {
    bool pass = false;
    std::uint64_t suppressed = 0;  // since the last one that passed
  };
  Answer ask(std::string_view event, time_point now);

 private:
  struct Bucket {
    double tokens = kBurst;
    time_point at;
    std::uint64_t suppressed = 0;
  };
  std::map<std::string, Bucket, std::less<>> buckets_;
};

}  // namespace agent::log

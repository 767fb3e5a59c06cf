#include "agent/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "protocol/wire/quoting.h"

namespace agent::log {
namespace {

constexpr std::size_t kMaxValueBytes = 512;

spdlog::logger& logger() {
  static spdlog::logger logger = [] {
    spdlog::logger made("agent", std::make_shared<spdlog::sinks::stderr_sink_st>());
    made.set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    made.flush_on(spdlog::level::trace);
    return made;
  }();
  return logger;
}

std::string value(std::string_view bytes) {
  std::string text = protocol::wire::printable(bytes, kMaxValueBytes);
  bool plain = !text.empty() && std::none_of(text.begin(), text.end(), [](unsigned char c) {
    return c == ' ' || c == '"' || c == '=';
  });
  if (plain) {
    return text;
  }
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"') {
      quoted += '\\';
    }
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace

std::string line(std::string_view event, Fields fields) {
  std::string text(event);
  for (const auto& [key, bytes] : fields) {
    text += ' ';
    text += key;
    text += '=';
    text += value(bytes);
  }
  return text;
}

void info(std::string_view event, Fields fields) {
  logger().log(spdlog::level::info, "{}", line(event, fields));
}

void warn(std::string_view event, Fields fields) {
  logger().log(spdlog::level::warn, "{}", line(event, fields));
}

void peer(std::string_view event, Fields fields) {
  static Limiter limiter;
  auto answer = limiter.ask(event, std::chrono::steady_clock::now());
  if (!answer.pass) {
    return;
  }
  std::string text = line(event, fields);
  if (answer.suppressed > 0) {
    text += " suppressed=" + std::to_string(answer.suppressed);
  }
  logger().log(spdlog::level::info, "{}", text);
}

Limiter::Answer Limiter::ask(std::string_view event, time_point now) {
  auto found = buckets_.find(event);
  if (found == buckets_.end()) {
    std::string name(buckets_.size() < kMaxEvents ? event : std::string_view{});
    found = buckets_.try_emplace(std::move(name), Bucket{kBurst, now, 0}).first;
  }
  Bucket& bucket = found->second;
  std::chrono::duration<double> passed = now - bucket.at;
  bucket.at = now;
  bucket.tokens = std::min<double>(kBurst, bucket.tokens + passed / kRefill);
  if (bucket.tokens < 1) {
    ++bucket.suppressed;
    return {};
  }
  bucket.tokens -= 1;
  return {true, std::exchange(bucket.suppressed, 0)};
}

}  // namespace agent::log

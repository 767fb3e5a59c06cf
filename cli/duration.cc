#include "cli/duration.h"

#include <cstdio>

namespace cli {

std::optional<std::chrono::seconds> parse_duration(std::string_view text) {
  constexpr std::int64_t kYear = 366LL * 24 * 3600;
  std::int64_t total = 0;
  std::int64_t last_unit = kYear;  // units must go down: 1h30m, not 30m1h
  if (text.empty()) {
    return std::nullopt;
  }
  while (!text.empty()) {
    std::int64_t number = 0;
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
      number = number * 10 + (text[digits] - '0');
      if (number > kYear) {
        return std::nullopt;
      }
      ++digits;
    }
    if (digits == 0) {
      return std::nullopt;
    }
    text.remove_prefix(digits);
    std::int64_t unit = 1;
    if (!text.empty()) {
      switch (text.front()) {
        case 's':
          unit = 1;
          break;
        case 'm':
          unit = 60;
          break;
        case 'h':
          unit = 3600;
          break;
        case 'd':
          unit = 86400;
          break;
        case 'w':
          unit = 7 * 86400;
          break;
        default:
          return std::nullopt;
      }
      text.remove_prefix(1);
    } else if (last_unit != kYear) {
      return std::nullopt;  // "1h30": of what?
    }
    if (unit >= last_unit) {
      return std::nullopt;
    }
    last_unit = unit;
    total += number * unit;
    if (total > kYear) {
      return std::nullopt;
    }
  }
  return std::chrono::seconds(total);
}

std::string show_duration(std::chrono::seconds duration) {
  long long s = duration.count() < 0 ? 0 : duration.count();
  char text[64];
  if (s < 60) {
    std::snprintf(text, sizeof text, "%llds", s);
  } else if (s < 3600) {
    std::snprintf(text, sizeof text, "%lldm %02llds", s / 60, s % 60);
  } else if (s < 86400) {
    std::snprintf(text, sizeof text, "%lldh %02lldm", s / 3600, s / 60 % 60);
  } else {
    std::snprintf(text, sizeof text, "%lldd %02lldh", s / 86400, s / 3600 % 24);
  }
  return text;
}

std::optional<std::int64_t> parse_wait(std::string_view text) {
  if (text == "inf") {
    return -1;
  }
  auto duration = parse_duration(text);
  if (!duration) {
    return std::nullopt;
  }
  return duration->count();
}

}  // namespace cli

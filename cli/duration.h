// Spans of time as people write and read them. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cli {

// "90", "90s", "5m", "1h30m", "2d", "2w": seconds without a unit. std::nullopt for anything else,
// negative or over a year.
std::optional<std::chrono::seconds> parse_duration(std::string_view text);

// "7s", "2m 05s", "3h 10m", "4d 02h".
std::string show_duration(std::chrono::seconds duration);

// How long to wait for the lock, as lock_requested says it: -1 without limit, 0 refused at once.
// std::nullopt for a text that is neither a duration nor `inf`.
std::optional<std::int64_t> parse_wait(std::string_view text);

}  // namespace cli

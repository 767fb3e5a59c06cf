#include "protocol/os/clock.h"

#include <cstdio>

namespace protocol::os {

using namespace std::chrono;

std::string format_utc(Clock::system time) {
  auto seconds = floor<std::chrono::seconds>(time);
  auto day = floor<days>(seconds);
  year_month_day date(day);
  hh_mm_ss clock(seconds - day);
  char text[40];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  return text;
}

wire::result<Clock::system> parse_utc(const std::string& text) {
  wire::Failure bad(wire::Errc::bad_input,
                    "\"" + text.substr(0, 40) + "\" is not an RFC 3339 time");
  int y, m, d, h, min, s, used = 0;
  if (text.size() < 20 || text.size() > 64 ||
      std::sscanf(text.c_str(), "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &y, &m, &d, &h, &min, &s,
                  &used) != 6 ||
      used != 19)
    return bad;
  std::size_t at = 19;
  if (at < text.size() && text[at] == '.') {
    ++at;
    std::size_t digits = text.find_first_not_of("0123456789", at);
    if (digits == at || digits == std::string::npos) return bad;
    at = digits;
  }
  minutes offset{0};
  std::string zone = text.substr(at);
  if (zone != "Z" && zone != "z") {
    int oh, om;
    char sign, end;
    if (zone.size() != 6 || std::sscanf(zone.c_str(), "%c%2d:%2d%c", &sign, &oh, &om, &end) != 3 ||
        (sign != '+' && sign != '-') || oh < 0 || oh > 23 || om < 0 || om > 59)
      return bad;
    offset = (sign == '-' ? -1 : 1) * (hours(oh) + minutes(om));
  }
  year_month_day date(year(y), month(static_cast<unsigned>(m)), day(static_cast<unsigned>(d)));
  if (!date.ok() || h < 0 || h > 23 || min < 0 || min > 59 || s < 0 || s > 60) return bad;
  return Clock::system(sys_days(date) + hours(h) + minutes(min) + seconds(s) - offset);
}

}  // namespace protocol::os

#include "protocol/wire/result.h"

#include <array>

namespace protocol::wire {
namespace {

struct Word {
  Errc code;
  const char* text;
};
constexpr std::array kWords{
    Word{Errc::bad_input, "bad_input"},
    Word{Errc::too_large, "too_large"},
    Word{Errc::refused, "refused"},
    Word{Errc::busy, "busy"},
    Word{Errc::not_found, "not_found"},
    Word{Errc::exists, "exists"},
    Word{Errc::gone, "gone"},
    Word{Errc::timed_out, "timed_out"},
    Word{Errc::cancelled, "cancelled"},
    Word{Errc::no_space, "no_space"},
    Word{Errc::denied, "denied"},
    Word{Errc::unsupported, "unsupported"},
    Word{Errc::io, "io"},
};

}  // namespace

const char* name(Errc code) {
  for (const auto& word : kWords) {
    if (word.code == code) return word.text;
  }
  return "io";
}

Errc errc_from_name(const std::string& word) {
  for (const auto& known : kWords) {
    if (word == known.text) return known.code;
  }
  return Errc::io;
}

}  // namespace protocol::wire

// Catch2, whichever major version the system has: 2.13 (Debian 12) or 3 (Debian 13, Ubuntu 24.04).
// A test includes this and writes no main of its own.
//
// A result<T> in a REQUIRE prints its value, or its Errc and text.
#pragma once

#include <string>
#include <type_traits>

#include "protocol/wire/result.h"

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
// The matchers of strings under the names that version 2 has for them.
namespace Catch {
using Matchers::EndsWith;
using Matchers::Equals;
using Matchers::StartsWith;
inline auto Contains(const std::string& text) { return Matchers::ContainsSubstring(text); }
}  // namespace Catch
#else
#include <catch2/catch.hpp>
#endif

// Boost's own operator<< for result<T> exists for every T and compiles for few, so that Catch2 must
// be told what to do instead.
template <class T>
struct Catch::StringMaker<protocol::wire::result<T>> {
  static std::string convert(const protocol::wire::result<T>& r) {
    if (r.has_error()) return std::string(name(r.error().code)) + ": " + r.error().what;
    if constexpr (std::is_void_v<T>) {
      return "(success)";
    } else {
      return Catch::Detail::stringify(*r);
    }
  }
};

// What a call that can fail in an expected way gives back. Three kinds of wrong are kept apart:
// expected (this file), cannot run (an exception, caught in main and at the edge of a session),
// and our own bug (assert).
#pragma once

#include <boost/system/result.hpp>
#include <stdexcept>
#include <string>
#include <utility>

namespace protocol::wire {

// Few values: each one is a different thing for the caller to do.
enum class Errc {
  bad_input,    // malformed bytes, names or values; the text names which
  too_large,    // over a limit of protocol/wire/limits.h
  refused,      // understood and not allowed
  busy,         // somebody else holds it; trying later may work
  not_found,    // no such sandbox, object, file or command
  exists,       // already there
  gone,         // the peer or the process is no longer there
  timed_out,    // a deadline passed
  cancelled,    // we stopped it ourselves
  no_space,     // disk full, quota, file too large for the disk
  denied,       // the operating system said no (permissions, read-only)
  unsupported,  // the other side, this system or this git cannot do it
  io,           // anything else the operating system reported
};

// One word per Errc, as it stands in messages and JSON ("bad_input").
const char* name(Errc code);
// The Errc of such a word; Errc::io for a word that is not known.
Errc errc_from_name(const std::string& word);

// What went wrong and with what: `what` names the path, command or peer, and is a clause that the
// place which knows the user makes a sentence of.
struct Failure {
  Errc code = Errc::io;
  std::string what;

  Failure() = default;
  explicit Failure(Errc c, std::string w = {}) : code(c), what(std::move(w)) {}
};

template <class T>
using result = boost::system::result<T, Failure>;

// Thrown only when somebody calls result::value() without having looked.
struct FailureError : std::runtime_error {
  explicit FailureError(Failure f)
      : std::runtime_error(std::string(name(f.code)) + ": " + f.what), failure(std::move(f)) {}
  Failure failure;
};
[[noreturn]] inline void throw_exception_from_error(const Failure& f,
                                                    const boost::source_location&) {
  throw FailureError(f);
}

}  // namespace protocol::wire

// The boxes that this user knows: boxes.json with addresses and pinned host keys. A host key is
// pinned on first contact and checked ever after. The local box is built in and not listed: its
// agent says its address itself.
//
// Every change is lock (an flock on boxes.json.lock, never unlinked), read, change, write. A
// damaged file, or one of a newer version, is refused and left as it is.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/environment.h"
#include "protocol/wire/result.h"

namespace cli {

inline constexpr const char* kLocalBox = "local";
inline constexpr std::uint16_t kDefaultPort = 43215;  // of a box whose address names none
// On a box that is reached through its sshd. Relative paths begin at the home directory there.
inline constexpr const char* kAgentProgram = "sandbox-agent";
inline constexpr const char* kAgentState = ".local/state/sandbox-agent";

struct Address {
  std::string host;
  std::uint16_t port = 0;
  std::string text() const;  // HOST:PORT, [::1]:PORT
  bool operator==(const Address&) const = default;
};
// HOST:PORT or [IPV6]:PORT; std::nullopt for anything else.
std::optional<Address> parse_address(std::string_view text);
// The same, and HOST or [IPV6] alone: then the port is kDefaultPort.
std::optional<Address> parse_host(std::string_view text);

struct Box {
  std::string name;
  Address address;           // no host: reached through its own sshd, see via_ssh
  std::string host_key;      // "ssh-ed25519 AAAA..."; empty: not pinned yet, or ssh's business
  std::string via_ssh;       // a host as the user's ssh_config knows it
  std::string agent;         // via_ssh: the agent's program there; empty: kAgentProgram, on PATH
  std::string state;         // via_ssh: that agent's state directory; empty: kAgentState
  boost::json::object more;  // what a later version has written about it: kept

  // "HOST:PORT", "ssh HOST"
  std::string place() const;
};

// Letters, digits and . _ - , beginning with a letter or digit, 64 bytes at most, and not `local`:
// what a new box may be called. Throws UserError (status 2).
void check_box_name(const std::string& name);

// "rig2" before "rig10": runs of digits count as numbers. A strict order.
bool natural_less(std::string_view a, std::string_view b);

// {"version":1,"boxes":{NAME:{"address":"HOST:PORT","hostKey":"ssh-ed25519 …"}}}
std::string encode_boxes(const std::vector<Box>& boxes);
// Sorted by name. Errc::bad_input naming what is wrong, Errc::unsupported for a newer version.
protocol::wire::result<std::vector<Box>> decode_boxes(std::string_view text);

// All of them, in natural order. Throws UserError naming the file.
std::vector<Box> read_boxes(const Paths& paths);

// One read-modify-write under the lock. What `change` throws is passed on, and nothing is written
// then. Throws UserError.
void change_boxes(const Paths& paths, const std::function<void(std::vector<Box>&)>& change);

// The one of that name; nullptr: none.
Box* find_name(std::vector<Box>& boxes, const std::string& name);

// The box of that name, or HOST:PORT itself: then with the key that is pinned for that address
// under any name. Throws UserError that names the boxes there are. Not for the local box.
Box find_box(const Paths& paths, const std::string& name);

// Writes down the host key of a box that had none. If another process was faster, its key counts:
// returns the pinned one.
std::string pin_host_key(const Paths& paths, const Box& box, const std::string& host_key);

}  // namespace cli

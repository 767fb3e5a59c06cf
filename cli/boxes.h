// The boxes that this user knows: boxes.json with addresses and pinned host keys. A host key is
// pinned on first contact and checked ever after. The local box is built in and not listed: its
// agent says its address itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cli/environment.h"

namespace cli {

inline constexpr const char* kLocalBox = "local";

struct Address {
  std::string host;
  std::uint16_t port = 0;
  std::string text() const;  // HOST:PORT, [::1]:PORT
};
// HOST:PORT or [IPV6]:PORT; std::nullopt for anything else.
std::optional<Address> parse_address(std::string_view text);

struct Box {
  std::string name;
  Address address;
  std::string host_key;  // "ssh-ed25519 AAAA..."; empty: not pinned yet
};

// The box of that name, or HOST:PORT itself. Throws UserError naming the file and what to do. Not
// for the local box.
Box find_box(const Paths& paths, const std::string& name);

// Writes down the host key of a box that had none. If another process was faster, its key counts:
// returns the pinned one.
std::string pin_host_key(const Paths& paths, const Box& box, const std::string& host_key);

}  // namespace cli

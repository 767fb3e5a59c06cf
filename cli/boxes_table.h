// The table of `sandbox boxes`: rows to lines and to JSON. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cli {

enum class BoxStatus { current, needs_update, newer, unreachable };
const char* text(BoxStatus status);  // "needs update"

// What an agent of that version is to a client of ours: numbers between dots, compared one by one.
BoxStatus compare_versions(std::string_view agent, std::string_view ours);

struct BoxUser {
  std::string user;
  std::string verb;
  std::string command;
  std::string scope = {};  // which of the user's CI jobs; empty: the person
};

struct BoxRow {
  std::string name;
  std::string address;
  std::string version;  // empty: not known
  BoxStatus status = BoxStatus::unreachable;
  std::string why;                        // it is unreachable
  std::optional<std::int64_t> sandboxes;  // not known when it is unreachable
  std::string locked_by;                  // who has reserved it; empty: nobody
  std::string lock_scope;                 // as of BoxUser
  std::string since;                      // RFC 3339
  std::string reason;
  std::vector<BoxUser> users;           // who runs a command there
  std::optional<std::int64_t> slots;    // 0: no limit; not known of an old agent
  std::optional<std::int64_t> waiting;  // for the lock
  std::optional<std::int64_t> jobs;     // detached ones that run
};

// Puts an ANSI colour ("33") around text, or does not.
using Paint = std::function<std::string(std::string_view text, const char* ansi)>;

// Header, rule and one line a row, in the order of `rows`; `locked by` and `busy` only when some
// row has one. Cells are made printable.
std::vector<std::string> box_table(const std::vector<BoxRow>& rows, const Paint& paint);

// What stands under it: our version, and how many need what.
std::vector<std::string> box_footer(const std::vector<BoxRow>& rows, std::string_view ours,
                                    const Paint& paint);

// One element of "Boxes".
boost::json::object box_json(const BoxRow& row);

}  // namespace cli

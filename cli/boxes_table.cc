#include "cli/boxes_table.h"

#include <algorithm>
#include <boost/json.hpp>

#include "cli/output.h"
#include "protocol/wire/quoting.h"
#include "protocol/wire/scope.h"

namespace cli {
namespace json = boost::json;

namespace {

constexpr const char* kRed = "31";
constexpr const char* kGreen = "32";
constexpr const char* kYellow = "33";
constexpr const char* kMagenta = "35";
constexpr const char* kCyan = "36";
constexpr std::size_t kGap = 3;
constexpr std::size_t kMostCell = 200;
constexpr std::size_t kMostUsers = 3;

const char* color(BoxStatus status) {
  switch (status) {
    case BoxStatus::current:
      return kGreen;
    case BoxStatus::needs_update:
      return kYellow;
    case BoxStatus::newer:
      return kCyan;
    case BoxStatus::unreachable:
      return kRed;
  }
  return kRed;
}

struct Cell {
  std::string text;
  const char* ansi = nullptr;
};
using Cells = std::vector<Cell>;

Cell cell(const std::string& text, const char* ansi = nullptr) {
  return {protocol::wire::printable(text, kMostCell), ansi};
}

std::string busy_text(const BoxRow& row) {
  std::string text;
  for (std::size_t i = 0; i < row.users.size() && i < kMostUsers; ++i) {
    const BoxUser& user = row.users[i];
    text += (i == 0 ? "" : ", ") + protocol::wire::shown_user(user.user, user.scope) +
            (user.verb.empty() ? "" : " (" + user.verb + ")");
  }
  if (row.users.size() > kMostUsers) {
    text += " and " + std::to_string(row.users.size() - kMostUsers) + " more";
  }
  return text;
}

std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::int64_t number(std::string_view text) {
  std::int64_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') {
      break;
    }
    value = std::min<std::int64_t>(value * 10 + (c - '0'), 1'000'000'000);
  }
  return value;
}

std::string_view take_part(std::string_view& text) {
  auto dot = text.find('.');
  std::string_view part = text.substr(0, dot);
  text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  return part;
}

}  // namespace

const char* text(BoxStatus status) {
  switch (status) {
    case BoxStatus::current:
      return "current";
    case BoxStatus::needs_update:
      return "needs update";
    case BoxStatus::newer:
      return "newer";
    case BoxStatus::unreachable:
      return "unreachable";
  }
  return "unreachable";
}

BoxStatus compare_versions(std::string_view agent, std::string_view ours) {
  while (!agent.empty() || !ours.empty()) {
    std::int64_t theirs = number(take_part(agent));
    std::int64_t mine = number(take_part(ours));
    if (theirs != mine) {
      return theirs < mine ? BoxStatus::needs_update : BoxStatus::newer;
    }
  }
  return BoxStatus::current;
}

std::vector<std::string> box_table(const std::vector<BoxRow>& rows, const Paint& paint) {
  auto any = [&rows](auto has) { return std::any_of(rows.begin(), rows.end(), has); };
  bool locked = any([](const BoxRow& row) { return !row.locked_by.empty(); });
  bool busy = any([](const BoxRow& row) { return !row.users.empty(); });

  std::vector<Cells> lines;
  Cells header = {cell("name"), cell("address"), cell("version"), cell("status"),
                  cell("sandboxes")};
  if (locked) {
    header.push_back(cell("locked by"));
  }
  if (busy) {
    header.push_back(cell("busy"));
  }
  lines.push_back(header);
  for (const auto& row : rows) {
    Cells cells = {cell(row.name), cell(row.address), cell(row.version.empty() ? "-" : row.version),
                   cell(text(row.status), color(row.status)),
                   cell(row.sandboxes ? std::to_string(*row.sandboxes) : "-")};
    if (locked) {
      cells.push_back(cell(row.locked_by.empty()
                               ? std::string()
                               : protocol::wire::shown_user(row.locked_by, row.lock_scope),
                           kMagenta));
    }
    if (busy) {
      cells.push_back(cell(busy_text(row), kYellow));
    }
    lines.push_back(std::move(cells));
  }

  std::vector<std::size_t> widths(header.size(), 0);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], width(line[i].text));
    }
  }
  std::size_t total = kGap * (widths.size() - 1);
  for (std::size_t column : widths) {
    total += column;
  }
  std::vector<std::string> out;
  for (const auto& line : lines) {
    std::string shown;
    std::size_t owed = 0;  // spaces, written once something follows them
    for (std::size_t i = 0; i < line.size(); ++i) {
      const Cell& one = line[i];
      if (!one.text.empty()) {
        shown.append(owed, ' ');
        owed = 0;
        shown += one.ansi == nullptr ? one.text : paint(one.text, one.ansi);
      }
      owed += widths[i] - width(one.text) + kGap;
    }
    out.push_back(std::move(shown));
    if (out.size() == 1) {
      out.emplace_back(total, '=');
    }
  }
  return out;
}

std::vector<std::string> box_footer(const std::vector<BoxRow>& rows, std::string_view ours,
                                    const Paint& paint) {
  auto count = [&rows](BoxStatus status) {
    return std::count_if(rows.begin(), rows.end(),
                         [status](const BoxRow& row) { return row.status == status; });
  };
  std::vector<std::string> lines = {"CLI version: " + std::string(ours)};
  struct Counted {
    BoxStatus status;
    const char* one;
    const char* more;
  };
  for (const Counted& what :
       {Counted{BoxStatus::needs_update, " box needs an update", " boxes need an update"},
        Counted{BoxStatus::newer, " box is newer than this CLI", " boxes are newer than this CLI"},
        Counted{BoxStatus::unreachable, " box is unreachable", " boxes are unreachable"}}) {
    auto boxes = count(what.status);
    if (boxes != 0) {
      lines.push_back(
          paint(std::to_string(boxes) + (boxes == 1 ? what.one : what.more), color(what.status)));
    }
  }
  return lines;
}

json::object box_json(const BoxRow& row) {
  json::object out;
  out["Name"] = json_text(row.name);
  out["Address"] = json_text(row.address);
  out["Version"] = json_text(row.version);
  out["Status"] = text(row.status);
  out["Error"] = json_text(row.why);
  auto number = [](const std::optional<std::int64_t>& known) {
    return known ? json::value(*known) : json::value(nullptr);
  };
  out["Sandboxes"] = number(row.sandboxes);
  out["Slots"] = number(row.slots);
  out["Waiting"] = number(row.waiting);
  out["Jobs"] = number(row.jobs);
  out["LockedBy"] = json_text(row.locked_by);
  out["LockScope"] = json_text(row.lock_scope);
  out["LockedSince"] = json_text(row.since);
  out["LockReason"] = json_text(row.reason);
  json::array busy;
  for (const auto& user : row.users) {
    json::object one;
    one["User"] = json_text(user.user);
    one["Scope"] = json_text(user.scope);
    one["Verb"] = json_text(user.verb);
    one["Command"] = json_text(user.command);
    busy.push_back(std::move(one));
  }
  out["Busy"] = std::move(busy);
  return out;
}

}  // namespace cli

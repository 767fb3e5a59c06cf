// sandbox boxes export, import: the list of boxes as JSON, host keys included, from one machine to
// another.
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <filesystem>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/context.h"
#include "protocol/os/fd.h"
#include "protocol/os/offload.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::size_t kMostBytes = 4 * 1024 * 1024;

fs::path named_file(const Context& context) {
  fs::path file = context.arguments.positional.front();
  return file.is_absolute() || !context.environment.directory
             ? file
             : *context.environment.directory / file;
}

std::string names(const std::vector<Box>& boxes) {
  std::string text;
  for (const auto& box : boxes) {
    text += (text.empty() ? "" : ", ") + box.name;
  }
  return text;
}

std::string count_text(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " box" : " boxes");
}

wire::result<std::string> read_stdin() {
  std::string text;
  char buffer[16384];
  for (;;) {
    ssize_t got = ::read(0, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return os::errno_failure(errno, "stdin");
    }
    if (got == 0) {
      return text;
    }
    text.append(buffer, static_cast<std::size_t>(got));
    if (text.size() > kMostBytes) {
      return wire::Failure(wire::Errc::too_large, "stdin has more than 4 MiB");
    }
  }
}

bool same(const Box& a, const Box& b) { return encode_boxes({a}) == encode_boxes({b}); }

json::array names_json(const std::vector<Box>& boxes) {
  json::array out;
  for (const auto& box : boxes) {
    out.emplace_back(box.name);
  }
  return out;
}

}  // namespace

os::awaitable<int> run_boxes_export(Context& context) {
  std::vector<Box> boxes = read_boxes(context.paths);
  std::string text = encode_boxes(boxes);
  if (context.arguments.positional.empty()) {
    text.pop_back();  // line() ends it
    context.output.line(text);
    co_return 0;
  }
  fs::path file = named_file(context);
  std::error_code error;
  if (fs::exists(fs::symlink_status(file, error)) && !context.arguments.has("force")) {
    throw UserError("box", file.string() + " is there already",
                    "Name another file, or replace it with --force.", kMisuse);
  }
  if (auto written = os::write_file(file, text); !written) {
    throw UserError("box", "cannot write " + written.error().what);
  }
  if (context.output.json()) {
    json::object answer;
    answer["Exported"] = names_json(boxes);
    answer["File"] = json_text(file.string());
    context.output.json_line(answer);
  } else {
    context.output.line("Exported " + count_text(boxes.size()) + " to " + file.string());
  }
  co_return 0;
}

os::awaitable<int> run_boxes_import(Context& context) {
  bool from_file = !context.arguments.positional.empty();
  if (!from_file && !context.environment.stdin_open) {
    throw UserError("arguments", "stdin is closed", "Name the file to import.", kMisuse);
  }
  fs::path file = from_file ? named_file(context) : fs::path("stdin");
  auto read = [file, from_file] {
    return from_file ? os::read_file(file, kMostBytes) : read_stdin();
  };
  auto text = co_await os::offload(context.pool, std::move(read));
  if (!text) {
    throw UserError("box", "cannot read " + file.string() + ": " + text.error().what,
                    "Nothing was changed.");
  }
  auto boxes = decode_boxes(*text);
  if (!boxes) {
    throw UserError("box", file.string() + " is no list of boxes: " + boxes.error().what,
                    "`sandbox boxes export` writes one. Nothing was changed.");
  }
  bool force = context.arguments.has("force");
  std::vector<Box> added;
  std::vector<Box> replaced;
  change_boxes(context.paths, [&](std::vector<Box>& all) {
    std::vector<Box> others;
    for (const auto& box : *boxes) {
      Box* known = find_name(all, box.name);
      if (known == nullptr) {
        if (!parse_address(box.name)) {
          check_box_name(box.name);
        }
        all.push_back(box);
        added.push_back(box);
      } else if (!same(*known, box)) {
        others.push_back(box);
        replaced.push_back(box);
        if (force) {
          *known = box;
        }
      }
    }
    if (!others.empty() && !force) {
      throw UserError("box", "known already, but as another box: " + names(others),
                      "--force replaces what is known. Nothing was changed.");
    }
  });
  if (context.output.json()) {
    json::object answer;
    answer["Imported"] = names_json(added);
    answer["Replaced"] = names_json(replaced);
    context.output.json_line(answer);
    co_return 0;
  }
  context.output.line("Imported " + count_text(added.size()) +
                      (added.empty() ? "." : ": " + names(added)));
  if (!replaced.empty()) {
    context.output.line("Replaced " + count_text(replaced.size()) + ": " + names(replaced));
  }
  co_return 0;
}

}  // namespace cli

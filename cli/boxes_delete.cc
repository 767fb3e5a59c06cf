// sandbox boxes delete: forgets a box. The box itself is not asked and keeps what is on it.
#include <boost/json.hpp>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/confirm.h"
#include "cli/context.h"
#include "cli/target.h"

namespace cli {
namespace os = protocol::os;

namespace {

os::awaitable<std::size_t> sandboxes_on_record(Context& context, std::string box) {
  Resolver resolver = make_resolver(context);
  auto storage = co_await resolver.lock();
  std::size_t count = 0;
  for (const auto& entry : storage->entries()) {
    count += entry.key.box == box ? 1 : 0;
  }
  co_return count;
}

}  // namespace

os::awaitable<int> run_boxes_delete(Context& context) {
  std::string name = context.arguments.value("name").value_or("");
  if (name.empty()) {
    throw UserError("arguments", "--name NAME is missing", {}, kMisuse);
  }
  if (name == kLocalBox) {
    throw UserError("arguments", "the box `local` is built in and cannot be deleted", {}, kMisuse);
  }
  std::vector<Box> boxes = read_boxes(context.paths);
  if (find_name(boxes, name) == nullptr) {
    Box known = find_box(context.paths, name);
    throw UserError("box", "the box " + known.name + " is not on record", {}, kMisuse);
  }
  std::size_t count = co_await sandboxes_on_record(context, name);
  std::string stays = count == 0   ? std::string()
                      : count == 1 ? "A sandbox on record stays there"
                                   : std::to_string(count) + " sandboxes on record stay there";
  if (!context.arguments.has("yes")) {
    std::string question = "Delete the box " + name + " (" + find_name(boxes, name)->place() +
                           ")?" + (stays.empty() ? "" : " " + stays + ".");
    bool agreed = co_await confirm(context, question, "--yes");
    if (!agreed) {
      context.output.note("Nothing was changed.");
      co_return 1;
    }
  }
  change_boxes(context.paths, [&name](std::vector<Box>& all) {
    std::erase_if(all, [&name](const Box& box) { return box.name == name; });
  });
  if (context.output.json()) {
    boost::json::object answer;
    answer["Deleted"] = name;
    context.output.json_line(answer);
  } else {
    context.output.line("Deleted box " + name + ".");
    if (!stays.empty()) {
      context.output.note("sandbox: " + stays +
                          ": the box, added again under this name, has them still");
    }
  }
  co_return 0;
}

}  // namespace cli

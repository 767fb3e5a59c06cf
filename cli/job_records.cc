#include "cli/job_records.h"

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <optional>
#include <utility>

#include "cli/error.h"
#include "cli/json_bytes.h"
#include "protocol/os/paths.h"
#include "protocol/os/set_aside.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::size_t kMostBytes = 64 * 1024;
constexpr std::size_t kIdDigits = 32;

std::string member(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr ? std::string() : bytes_of(*value).value_or("");
}

// std::nullopt: damaged.
std::optional<JobRecord> parse(const std::string& id, const std::string& text) {
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  if (error || !value.is_object()) {
    return std::nullopt;
  }
  const json::object& object = value.get_object();
  JobRecord record{id, member(object, "box"), member(object, "sandbox"), member(object, "project"),
                   member(object, "command")};
  if (record.box.empty()) {
    return std::nullopt;
  }
  return record;
}

// The oldest beyond kMostKept go. Whoever else does the same at this moment does no harm.
void forget_oldest(const fs::path& directory) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(directory, error)) {
    auto written = file.last_write_time(error);
    if (!error) {
      files.emplace_back(written, file.path());
    }
  }
  if (files.size() <= kMostKept) {
    return;
  }
  std::sort(files.begin(), files.end());
  for (std::size_t i = 0; i < files.size() - kMostKept; ++i) {
    fs::remove(files[i].second, error);
  }
}

}  // namespace

bool is_job_id(const std::string& text) {
  return text.size() >= 4 && text.size() <= kIdDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_whole_job_id(const std::string& text) {
  return text.size() == kIdDigits && is_job_id(text);
}

void remember_job(const Paths& paths, const JobRecord& record) {
  if (!is_whole_job_id(record.id)) {
    throw UserError("storage",
                    "cannot write down where the job runs: `" + wire::printable(record.id, 80) +
                        "` is no job's id",
                    "`sandbox jobs --box " + record.box + "` shows those there are.");
  }
  json::object object;
  object["box"] = bytes_value(record.box);
  object["sandbox"] = record.sandbox;
  object["project"] = bytes_value(record.project);
  object["command"] = bytes_value(record.command);
  auto written = os::make_private_directory(paths.jobs());
  if (written) {
    written = os::write_file(paths.jobs() / record.id, json::serialize(object) + "\n");
  }
  if (!written) {
    throw UserError("storage", "cannot write down where the job runs: " + written.error().what,
                    "It runs on: `sandbox attach --box " + record.box + " " + record.id +
                        "` shows its output.");
  }
  forget_oldest(paths.jobs());
}

RememberedJobs remembered_jobs(const Paths& paths, const std::string& beginning) {
  RememberedJobs found;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(paths.jobs(), error)) {
    std::string id = file.path().filename().string();
    if (!is_whole_job_id(id) || id.compare(0, beginning.size(), beginning) != 0) {
      continue;
    }
    auto text = os::read_file(file.path(), kMostBytes);
    if (!text && text.error().code == wire::Errc::not_found) {
      continue;  // another command has just forgotten it
    }
    std::optional<JobRecord> record;
    if (text) {
      record = parse(id, *text);
    }
    if (record) {
      found.jobs.push_back(std::move(*record));
      continue;
    }
    auto aside = os::set_aside(file.path());
    found.damaged.push_back(
        "the record of the job " + id + " is damaged" +
        (aside ? ", and kept as " + aside->string() : ": " + aside.error().what) +
        "; `sandbox attach --box BOX " + id + "` finds the job all the same");
  }
  return found;
}

std::vector<JobRecord> remembered_jobs(const Paths& paths, const std::string& beginning,
                                       Output& output) {
  RememberedJobs found = remembered_jobs(paths, beginning);
  for (const auto& text : found.damaged) {
    output.warn(text);
  }
  return std::move(found.jobs);
}

}  // namespace cli

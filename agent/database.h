// One SQLite database behind values: statements in, rows out, and SQLite's codes turned into Errc
// at the call. Knows no table. Blocks; for one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "protocol/wire/result.h"

struct sqlite3;

namespace agent {

using protocol::wire::result;

class Database {
 public:
  using Value = std::variant<std::int64_t, std::string>;
  using Row = std::vector<Value>;

  // Opens a file that exists, or makes it (0600). Every commit is on the disk when it returns (WAL,
  // synchronous FULL). Errc::not_found, denied, no_space, io; bad_input: not a database, or
  // damaged.
  enum class Mode { existing, make };
  static result<Database> open(const std::filesystem::path& file, Mode mode);

  // One or more statements without parameters.
  result<void> execute(const std::string& sql);
  // One statement; its parameters are ?1, ?2 ... An absent value (NULL) comes back as an empty
  // text.
  result<std::vector<Row>> query(const std::string& sql, const std::vector<Value>& values = {});
  // Commits when `work` succeeds and undoes all of it otherwise.
  result<void> transaction(const std::function<result<void>()>& work);
  // Reads every page. Errc::bad_input says what is wrong.
  result<void> check();
  // Commits go to a log beside the file from here on: readers do not wait, and a commit is one
  // write.
  result<void> log_ahead();

 private:
  struct Close {
    void operator()(sqlite3* handle) const;
  };
  Database(std::unique_ptr<sqlite3, Close> handle, std::string name);
  protocol::wire::Failure failure(int code) const;

  std::unique_ptr<sqlite3, Close> handle_;
  std::string name_;  // the file, for messages
};

std::int64_t number(const Database::Value& value);  // 0 for a text
std::string string(const Database::Value& value);   // empty for a number

}  // namespace agent

// What the user sees of us: answers on stdout, everything else on stderr. Never the command's own
// bytes (standard_streams.h). Knows colours, terminals and --json; does not know commands.
//
// What goes to stderr may hold words of a box or of another user, so control bytes in it become
// visible (wire::printable); line ends stay. Whoever writes an answer makes such words printable.
#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "cli/error.h"

namespace cli {

enum class ColorChoice { automatic, always, never };

struct OutputOptions {
  bool json = false;
  ColorChoice color = ColorChoice::automatic;
  bool no_color = false;  // NO_COLOR is set and not empty
  bool stdout_open = true;
  bool stdout_is_terminal = false;
  bool stderr_is_terminal = false;
  int out_fd = 1;
  int error_fd = 2;
};

class Output {
 public:
  explicit Output(OutputOptions options) : options_(options) {}

  bool json() const { return options_.json; }
  // May a line be changed in place? Never with --json.
  bool interactive() const { return options_.stderr_is_terminal && !options_.json; }

  // A line of the answer, on stdout. Throws UserError when stdout cannot take it, one without words
  // when its reader has gone.
  void line(std::string_view text);
  // The answer of --json: one line on stdout. An object gets what was warned of as Warnings.
  void json_line(const boost::json::value& value);

  // One line on stderr beside a command's own output; not with --json.
  void note(std::string_view text);
  void warn(std::string_view text);  // the same, coloured; with --json it is kept for the answer
  // A question on stderr, without the end of its line.
  void prompt(std::string_view text);
  // For --trace: always shown.
  void trace(std::string_view text);

  // `Error: …` and the next step on stderr; with --json one {"Error": …} line on stdout.
  void error(const UserError& error);

  // One line that changes in place, on a terminal only; everything else that is written takes it
  // away first.
  void transient(std::string_view text);
  // So many columns of it are shown.
  std::size_t columns() const;
  void clear_transient();

  // While a terminal is raw, a line feed alone does not return the carriage.
  void set_raw(bool raw) { raw_ = raw; }

  std::string paint(std::string_view text, const char* ansi, bool on_stdout) const;

 private:
  void to_stderr(std::string text);

  // `answer` with what was warned of until now, as a line.
  std::string answer_line(boost::json::value answer) const;

  OutputOptions options_;
  std::vector<std::string> warnings_;  // with --json
  bool transient_shown_ = false;
  bool raw_ = false;
};

// Columns of the terminal behind `fd`; 80 when it is none or says 0.
std::size_t terminal_columns(int fd);

// `text` cut to so many columns, with "…" at the end when something was cut. Counts code points.
std::string fit(std::string_view text, std::size_t columns);

// Rows under a header, columns padded to the widest cell. Cells are made printable.
std::vector<std::string> table(const std::vector<std::vector<std::string>>& rows);

// A JSON string of bytes that may not be UTF-8: those become visible escapes.
boost::json::string json_text(std::string_view bytes);

// The object of --json for an error: {"Error":{"Origin","Message","Next","Status"}}.
boost::json::value error_object(const UserError& error);

}  // namespace cli

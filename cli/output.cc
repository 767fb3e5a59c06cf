#include "cli/output.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>

#include "protocol/os/pty.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace {

// 0, or the errno of the write that failed.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0 && errno == EAGAIN) {  // whoever gave us the descriptor does not like to wait
      pollfd writable = {fd, POLLOUT, 0};
      ::poll(&writable, 1, -1);
      continue;
    }
    if (written < 0) {
      return errno;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

std::size_t code_points(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// What a box or another user said must not move the cursor, set a title or recolour: all but line
// ends becomes visible.
std::string shown(std::string_view text) {
  std::string out;
  for (;;) {
    std::size_t end = std::min(text.find('\n'), text.size());
    out += protocol::wire::printable(text.substr(0, end), std::string::npos);
    if (end == text.size()) {
      return out;
    }
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

}  // namespace

std::size_t terminal_columns(int fd) {
  return protocol::os::window(fd).value_or(protocol::os::WindowSize{}).columns;
}

std::string fit(std::string_view text, std::size_t columns) {
  if (code_points(text) <= columns) {
    return std::string(text);
  }
  if (columns == 0) {
    return {};
  }
  std::size_t end = 0;
  for (std::size_t seen = 0; end < text.size(); ++end) {
    bool starts = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
    if (starts && seen++ == columns - 1) {
      break;
    }
  }
  return std::string(text.substr(0, end)) + "…";
}

std::vector<std::string> table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  std::vector<std::vector<std::string>> cells;
  for (const auto& row : rows) {
    auto& shown = cells.emplace_back();
    for (std::size_t i = 0; i < row.size(); ++i) {
      shown.push_back(protocol::wire::printable(row[i], 512));
      widths.resize(std::max(widths.size(), i + 1));
      widths[i] = std::max(widths[i], code_points(shown.back()));
    }
  }
  std::vector<std::string> lines;
  for (const auto& row : cells) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) {
        line.append(widths[i] - code_points(row[i]) + 2, ' ');
      }
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

boost::json::string json_text(std::string_view bytes) {
  if (protocol::wire::is_utf8(bytes)) {
    return boost::json::string(bytes);
  }
  return boost::json::string(protocol::wire::printable(bytes, bytes.size() * 4 + 8));
}

boost::json::value error_object(const UserError& error) {
  boost::json::object inner;
  inner["Origin"] = error.origin;
  inner["Message"] = json_text(error.what());
  if (!error.next.empty()) {
    inner["Next"] = json_text(error.next);
  }
  inner["Status"] = error.status;
  boost::json::object outer;
  outer["Error"] = std::move(inner);
  return outer;
}

std::string Output::paint(std::string_view text, const char* ansi, bool on_stdout) const {
  bool terminal = on_stdout ? options_.stdout_is_terminal : options_.stderr_is_terminal;
  bool color = options_.color == ColorChoice::always ||
               (options_.color == ColorChoice::automatic && terminal && !options_.no_color);
  if (!color || options_.json) {
    return std::string(text);
  }
  return "\x1b[" + std::string(ansi) + "m" + std::string(text) + "\x1b[0m";
}

void Output::to_stderr(std::string text) {
  if (raw_) {
    for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) {
      text.insert(at, 1, '\r');
    }
  }
  write_all(options_.error_fd, text);  // nobody is left to be told when this fails
}

void Output::line(std::string_view text) {
  clear_transient();
  int failed = options_.stdout_open ? write_all(options_.out_fd, std::string(text) + "\n") : EBADF;
  if (failed == EPIPE && !options_.json) {
    throw UserError("command", {}, {}, kNobodyReads);
  }
  if (failed != 0) {
    throw UserError("command", std::string("cannot write to stdout: ") + std::strerror(failed));
  }
}

std::string Output::answer_line(boost::json::value answer) const {
  if (answer.is_object() && !warnings_.empty()) {
    boost::json::array texts;
    for (const auto& warning : warnings_) {
      texts.emplace_back(json_text(warning));
    }
    answer.get_object()["Warnings"] = std::move(texts);
  }
  return boost::json::serialize(answer);
}

void Output::json_line(const boost::json::value& value) { line(answer_line(value)); }

void Output::note(std::string_view text) {
  if (!options_.json) {
    clear_transient();
    to_stderr(shown(text) + "\n");
  }
}

void Output::warn(std::string_view text) {
  if (options_.json) {
    warnings_.emplace_back(text);
    return;
  }
  clear_transient();
  to_stderr(paint("Warning:", "33", false) + " " + shown(text) + "\n");
}

void Output::prompt(std::string_view text) {
  clear_transient();
  to_stderr(shown(text));
}

void Output::trace(std::string_view text) {
  clear_transient();
  to_stderr(shown(text) + "\n");
}

void Output::error(const UserError& error) {
  clear_transient();
  if (options_.json) {
    if (!options_.stdout_open ||
        write_all(options_.out_fd, answer_line(error_object(error)) + "\n") != 0) {
      to_stderr("Error: " + shown(error.what()) + "\n");
    }
    return;
  }
  if (std::string_view(error.what()).empty()) {
    return;
  }
  std::string text = paint("Error:", "31", false) + " " + shown(error.what()) + "\n";
  if (!error.next.empty()) {
    text += shown(error.next) + "\n";
  }
  to_stderr(std::move(text));
}

void Output::transient(std::string_view text) {
  if (interactive()) {
    write_all(options_.error_fd, "\r\x1b[K" + fit(shown(text), columns()));
    transient_shown_ = true;
  }
}

std::size_t Output::columns() const { return terminal_columns(options_.error_fd) - 1; }

void Output::clear_transient() {
  if (transient_shown_) {
    write_all(options_.error_fd, "\r\x1b[K");
    transient_shown_ = false;
  }
}

}  // namespace cli

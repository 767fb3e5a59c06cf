#include "cli/install_needs.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace cli {

namespace {

constexpr int kGitMajor = 2;
constexpr int kGitMinor = 39;

void add(std::vector<std::string>& list, std::string_view text) {
  if (!text.empty() && std::find(list.begin(), list.end(), text) == list.end()) {
    list.emplace_back(text);
  }
}

std::string_view trim_front(std::string_view text) {
  auto begin = text.find_first_not_of(" \t");
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
}

}  // namespace

Needs parse_needs(const std::vector<std::string>& lines) {
  Needs needs;
  for (const std::string& line : lines) {
    // /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./sandbox-agent)
    auto quoted = line.find("version `");
    if (quoted != std::string::npos) {
      std::string_view rest = std::string_view(line).substr(quoted + 9);
      add(needs.versions, rest.substr(0, rest.find('\'')));
      continue;
    }
    // libssh.so.4 => not found
    auto arrow = line.find(" => not found");
    if (arrow != std::string::npos) {
      add(needs.libraries, trim_front(std::string_view(line).substr(0, arrow)));
    }
  }
  return needs;
}

std::string package_of(std::string_view library) {
  if (library == "libssh.so.4") {
    return "libssh-4";  // older than the rule
  }
  auto so = library.find(".so");
  std::string name(library.substr(0, so));
  std::string version(so == std::string_view::npos || so + 4 > library.size()
                          ? std::string_view()
                          : library.substr(so + 4));
  for (char& c : name) {
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  bool digit = !name.empty() && std::isdigit(static_cast<unsigned char>(name.back())) != 0;
  return name + (digit && !version.empty() ? "-" : "") + version;
}

bool git_will_do(std::string_view version_line) {
  constexpr std::string_view kFront = "git version ";
  if (!version_line.starts_with(kFront)) {
    return false;
  }
  version_line.remove_prefix(kFront.size());
  int major = 0;
  int minor = 0;
  const char* end = version_line.data() + version_line.size();
  auto read = std::from_chars(version_line.data(), end, major);
  if (read.ec != std::errc() || read.ptr == end || *read.ptr != '.') {
    return false;
  }
  read = std::from_chars(read.ptr + 1, end, minor);
  return read.ec == std::errc() && (major != kGitMajor ? major > kGitMajor : minor >= kGitMinor);
}

}  // namespace cli

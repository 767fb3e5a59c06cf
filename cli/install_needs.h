// What a machine lacks to run our agent, and how to get it. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cli {

// What the dynamic linker did not find, from lines of ldd.
struct Needs {
  std::vector<std::string> libraries;  // "libssh.so.4"
  std::vector<std::string> versions;   // "GLIBC_2.38": a library is there, but it is an older one
};
Needs parse_needs(const std::vector<std::string>& lines);

// The package of a library as Debian and those after it name them: "libssh-4".
std::string package_of(std::string_view library);

// "git version 2.39.5" and later ones will do.
bool git_will_do(std::string_view version_line);

}  // namespace cli

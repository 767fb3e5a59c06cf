// Which of our own variables the commands of others may know.
#pragma once

#include <string_view>

namespace protocol::os {

// Where programs are, and in which language and time zone they speak.
inline bool is_passed_on(std::string_view variable) {
  return variable == "PATH" || variable == "LANG" || variable == "LANGUAGE" || variable == "TZ" ||
         variable.starts_with("LC_");
}

}  // namespace protocol::os

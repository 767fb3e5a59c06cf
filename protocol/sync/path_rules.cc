#include "protocol/sync/path_rules.h"

#include <algorithm>

#include "protocol/os/beneath.h"
#include "protocol/sync/name_fold.h"

namespace protocol::sync {

namespace {

// Without ignorable code points, ASCII letters lower case: how HFS+ and NTFS compare with an ASCII
// name.
std::string plain(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    std::string_view before = name;
    char32_t code = take_code_point(name);
    if (is_ignorable(code)) continue;
    if (code >= 'A' && code <= 'Z') code += 'a' - 'A';
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else {
      out += before.substr(0, before.size() - name.size());
    }
  }
  return out;
}

// One component as NTFS reads it: up to a stream's colon, without trailing dots and spaces.
bool is_git_part(std::string_view part) {
  part = part.substr(0, part.find(':'));
  while (!part.empty() && (part.back() == '.' || part.back() == ' ')) part.remove_suffix(1);
  if (part == ".git") return true;
  if (part.substr(0, 4) != "git~" || part.size() == 4) return false;
  return std::all_of(part.begin() + 4, part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

template <class F>
void for_each_component(std::string_view path, F f) {
  for (std::size_t begin = 0; begin <= path.size();) {
    std::size_t end = std::min(path.find('/', begin), path.size());
    f(path.substr(begin, end - begin));
    begin = end + 1;
  }
}

}  // namespace

bool is_git_name(std::string_view component) {
  std::string name = plain(component);
  std::string_view rest = name;
  for (;;) {
    std::size_t backslash = rest.find('\\');
    if (is_git_part(rest.substr(0, backslash))) return true;
    if (backslash == std::string_view::npos) return false;
    rest.remove_prefix(backslash + 1);
  }
}

bool is_own_name(std::string_view component) {
  return component.starts_with(os::kTemporaryPrefix) || component.ends_with(kConflictSuffix);
}

std::string refuse_path(std::string_view path) {
  if (path.empty()) return "an empty path";
  if (path.front() == '/') return "an absolute path";
  if (path.find('\0') != std::string_view::npos) return "a NUL byte in the path";
  std::string why;
  for_each_component(path, [&](std::string_view component) {
    if (!why.empty()) return;
    if (component.empty()) {
      why = "an empty name in the path";
    } else if (component == "." || component == "..") {
      why = "the path leaves the work tree";
    } else if (is_git_name(component)) {
      why = "a name that means .git";
    } else if (is_own_name(component)) {
      why = "a name that is kept for sandbox's own files";
    }
  });
  return why;
}

void NameSet::insert(std::string_view path, bool added) {
  std::string folded;
  std::size_t spelled = 0;
  for_each_component(path, [&](std::string_view component) {
    if (spelled != 0) {
      if (added) directories_.insert(folded);
      folded += '/';
      ++spelled;
    }
    folded += fold_name(component);
    spelled += component.size();
    auto& spellings = spellings_[folded];
    std::string_view prefix = path.substr(0, spelled);
    auto same = std::find_if(spellings.begin(), spellings.end(),
                             [&](const Spelling& spelling) { return spelling.path == prefix; });
    if (same == spellings.end()) {
      spellings.push_back({std::string(prefix), !added});
    } else if (!added) {
      same->known = true;
    }
  });
  if (added) files_.insert(folded);
}

std::string NameSet::judge(std::string_view path) const {
  std::string folded;
  std::string why;
  std::size_t spelled = 0;
  for_each_component(path, [&](std::string_view component) {
    if (!why.empty()) return;
    if (spelled != 0) {
      if (files_.contains(folded)) {
        why = "a file or link stands where the path needs a directory";
        return;
      }
      folded += '/';
      ++spelled;
    }
    folded += fold_name(component);
    spelled += component.size();
    std::string_view prefix = path.substr(0, spelled);
    auto found = spellings_.find(folded);
    if (found == spellings_.end()) return;
    const Spelling* other = nullptr;
    for (const Spelling& spelling : found->second) {
      if (spelling.path != prefix) {
        other = &spelling;
      } else if (spelling.known) {
        return;
      }
    }
    if (other) why = "on some file systems the same name as " + other->path;
  });
  if (why.empty() && directories_.contains(folded))
    why = "another path of the result needs a directory there";
  return why;
}

}  // namespace protocol::sync

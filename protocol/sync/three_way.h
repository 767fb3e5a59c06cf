// The three-way merge of one path: base is what was sent, theirs the box, ours the file as it is
// now. Pure: it decides and does nothing.
#pragma once

#include <optional>
#include <string>

#include "protocol/sync/tree_writer.h"

namespace protocol::sync {

struct Sides {
  std::optional<Wanted> base, theirs, ours;  // std::nullopt: not there
};

struct Decision {
  enum class Kind {
    keep,        // ours is right as it is
    take,        // ours becomes `to`; std::nullopt: it goes
    only_mode,   // ours keeps its content and becomes `to` in mode
    merge_text,  // both changed the content: `to` has the mode that a merged text gets
    conflict,    // ours stays, see `why`
  };
  Kind kind = Kind::keep;
  std::optional<Wanted> to;
  std::string why;
};

Decision decide(const Sides& sides);

}  // namespace protocol::sync

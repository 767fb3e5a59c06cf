#include "protocol/sync/three_way.h"

namespace protocol::sync {

namespace {

bool is_file(const std::optional<Wanted>& side) {
  return side && (side->mode == kModeFile || side->mode == kModeProgram);
}

Decision conflict(std::string why) {
  return {Decision::Kind::conflict, std::nullopt, std::move(why)};
}

// Whichever side changed it; two sides that changed a mode of two values agree.
std::uint32_t merged_mode(const Sides& sides) {
  if (sides.theirs->mode == sides.ours->mode) return sides.ours->mode;
  if (!is_file(sides.base)) return kModeProgram;
  return sides.theirs->mode == sides.base->mode ? sides.ours->mode : sides.theirs->mode;
}

}  // namespace

Decision decide(const Sides& sides) {
  const auto& [base, theirs, ours] = sides;
  if (theirs == ours || theirs == base) return {};
  if (ours == base) return {Decision::Kind::take, theirs, {}};
  if (!theirs) return conflict("deleted in the sandbox, changed here");
  if (!ours) return conflict("changed in the sandbox, deleted here");
  if (!is_file(theirs) || !is_file(ours))
    return conflict(theirs->mode == ours->mode
                        ? "changed on both sides"
                        : "changed on both sides, to different kinds of file");

  std::uint32_t mode = merged_mode(sides);
  bool same = theirs->oid == ours->oid;
  if (same || (is_file(base) && theirs->oid == base->oid)) {
    if (mode == ours->mode) return {};
    return {Decision::Kind::only_mode, Wanted{mode, ours->oid}, {}};
  }
  if (!is_file(base)) return conflict("made on both sides");
  if (ours->oid == base->oid) return {Decision::Kind::take, Wanted{mode, theirs->oid}, {}};
  return {Decision::Kind::merge_text, Wanted{mode, {}}, {}};
}

}  // namespace protocol::sync

// The agent's tables, as the steps that lead from an empty database to the newest version. A step
// is never changed once it was released: a change is one more step.
#pragma once

#include <filesystem>
#include <span>

#include "agent/database.h"

namespace agent {

// SQLite's application_id of our databases ("sbox").
inline constexpr std::int64_t kApplicationId = 0x73626f78;

std::span<const char* const> schema_steps();

// The database at `file`, made when it is missing, with all of `steps` done. Errc::unsupported when
// more steps were done than there are (both versions are named); Errc::bad_input when it is damaged
// or somebody else's, and then nothing was changed. A new one appears under its name when it is
// complete, so an empty file is a damaged one.
result<Database> open_with_schema(const std::filesystem::path& file,
                                  std::span<const char* const> steps);

}  // namespace agent

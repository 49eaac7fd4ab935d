// Small files, read and written whole: caches, profiles, prompts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hetero {

/// FNV-1a, for names of cache files. Guards against mix-ups and broken files, not against an attacker,
/// who could write the files anyway.
uint64_t text_hash(std::string_view text);

/// All of a file, pipes included. Errors name it.
Result<std::string> read_text_file(const std::string& path);

/// Replaces the file by `text`, by a temporary file beside it, so that it is never half written. Makes
/// its folder. Errors name the file.
Status replace_file(const std::string& path, std::string_view text);

}  // namespace hetero

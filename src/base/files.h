// Small files of our own: caches and profiles.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hetero {

/// FNV-1a, for names of cache files. Guards against mix-ups and broken files, not against an attacker,
/// who could write the files anyway.
uint64_t text_hash(std::string_view text);

/// Replaces the file by `text`, by a temporary file beside it, so that it is never half written. Makes
/// its folder. Errors name the file.
Status replace_file(const std::string& path, std::string_view text);

}  // namespace hetero

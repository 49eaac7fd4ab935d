// Small files, read and written whole: caches, profiles, prompts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/memory.h"
#include "base/status.h"

namespace hetero {

/// FNV-1a, for names of cache files. Guards against mix-ups and broken files, not against an attacker,
/// who could write the files anyway.
uint64_t text_hash(std::string_view text);

/// For messages: the text, or of one that is longer than `most` bytes its beginning and how long it is. UTF-8
/// is not cut within a character.
std::string shortened(std::string_view text, size_t most = 100);

/// All of a file, pipes included. Errors name it.
Result<std::string> read_text_file(const std::string& path);

/// Replaces the file by `text`, by a temporary file beside it, so that it is never half written. Makes
/// its folder. Errors name the file.
Status replace_file(const std::string& path, std::string_view text);

/// Gives a file the present as its time of modification, by which trim_folder() goes. Where that cannot be,
/// nothing happens.
void mark_used(const std::string& path);

/// Removes files of `folder`, not of the folders in it, until what is there has at most `limit` bytes: those
/// that may go by `expendable(name)`, the ones that were used longest ago first. What was used at `since` or
/// later stays whatever its size. Returns the bytes removed. Other processes may use the folder and trim it
/// at the same time: what one of them marks as used meanwhile stays, and what is gone already is no error.
Bytes trim_folder(const std::string& folder, Bytes limit,
                  const std::function<bool(std::string_view)>& expendable,
                  std::filesystem::file_time_type since);

}  // namespace hetero

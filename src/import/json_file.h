// JSON files of a model folder.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"

namespace hetero {

using Json = nlohmann::ordered_json;

/// Reads and parses; errors name the file.
Result<Json> read_json_file(const std::string& path);
/// The same, but null where the file is not there.
Result<Json> read_json_file_if_there(const std::string& path);
Result<std::string> read_text_file(const std::string& path);

}  // namespace hetero

// JSON files, whoever wrote them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hetero {

using Json = nlohmann::ordered_json;

/// Errors begin with `name`, and show no more of the text than tells what is wrong.
Result<Json> parse_json(std::string_view text, const std::string& name);
/// Reads and parses. Errors name the file.
Result<Json> read_json_file(const std::string& path);
/// The same, but null where the file is not there.
Result<Json> read_json_file_if_there(const std::string& path);

}  // namespace hetero

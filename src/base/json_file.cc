#include "base/json_file.h"

#include <fmt/format.h>

#include "base/files.h"

namespace hetero {

Result<Json> parse_json(std::string_view text, const std::string& name) {
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    return malformed(fmt::format("{}: not JSON: {}", name, shortened(e.what(), 200)));
  }
}

Result<Json> read_json_file(const std::string& path) {
  HETERO_TRY(const std::string text, read_text_file(path));
  return parse_json(text, path);
}

Result<Json> read_json_file_if_there(const std::string& path) {
  auto json = read_json_file(path);
  if (json.status().code() == Code::kNotFound) {
    return Json(nullptr);
  }
  return json;
}

}  // namespace hetero

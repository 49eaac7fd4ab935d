#include "base/files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace hetero {

uint64_t text_hash(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) {
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return h;
}

Result<std::string> read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return not_found(path + ": cannot be opened for reading");
  }
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) {
    return io_error(path + ": cannot be read");
  }
  return text;
}

Status replace_file(const std::string& path, std::string_view text) {
  std::error_code error;
  if (const auto folder = std::filesystem::path(path).parent_path(); !folder.empty()) {
    std::filesystem::create_directories(folder, error);
  }
  const std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  std::ofstream out(temporary, std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (out.fail()) {
    std::filesystem::remove(temporary, error);
    return io_error(fmt::format("{}: cannot be written", temporary));
  }
  std::filesystem::rename(temporary, path, error);
  return error ? io_error(fmt::format("{}: cannot be replaced: {}", path, error.message())) : Status();
}

}  // namespace hetero

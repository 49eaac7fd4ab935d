#include "base/files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <vector>

namespace hetero {

uint64_t text_hash(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) {
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return h;
}

std::string shortened(std::string_view text, size_t most) {
  if (text.size() <= most) {
    return std::string(text);
  }
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u) {
    --end;
  }
  return fmt::format("{}... ({} bytes)", text.substr(0, end), text.size());
}

Result<std::string> read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return not_found(shortened(path, 300) + ": cannot be opened for reading");
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

void mark_used(const std::string& path) {
  std::error_code error;
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now(), error);
}

Bytes trim_folder(const std::string& folder, Bytes limit,
                  const std::function<bool(std::string_view)>& expendable,
                  std::filesystem::file_time_type since) {
  struct File {
    std::filesystem::file_time_type used;
    Bytes size = 0;
    std::filesystem::path path;
  };
  // Times of files come from a clock that is a few milliseconds behind, and on some file systems count in
  // steps of two seconds.
  since -= std::chrono::seconds(2);
  std::error_code error;
  std::vector<File> old;
  Bytes total = 0;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code gone;
    if (!entry->is_regular_file(gone) || entry->is_symlink(gone)) {
      continue;
    }
    File file{entry->last_write_time(gone), 0, entry->path()};
    const auto size = gone ? 0 : entry->file_size(gone);
    if (gone) {
      continue;
    }
    file.size = static_cast<Bytes>(size);
    total += file.size;
    if (file.used < since && expendable(file.path.filename().string())) {
      old.push_back(std::move(file));
    }
  }
  std::sort(old.begin(), old.end(), [](const File& a, const File& b) { return a.used < b.used; });
  Bytes removed = 0;
  for (const File& file : old) {
    if (total <= limit) {
      break;
    }
    const auto used = std::filesystem::last_write_time(file.path, error);
    if (!error && used != file.used) {
      continue;  // somebody needs it now
    }
    if (std::filesystem::remove(file.path, error)) {
      removed += file.size;
    }
    if (!error) {
      total -= file.size;
    }
  }
  return removed;
}

}  // namespace hetero

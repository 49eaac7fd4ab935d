#include "text/tokenizer.h"
#include "text/unicode.h"

namespace hetero {
namespace {

// Whether `tail` (1 to 3 bytes, not a whole character) could still become one with more bytes.
bool could_grow(std::string_view tail) {
  std::string candidate(tail);
  // The only ranges that a second byte can have are [80,BF] and its parts below (E0, F0) and
  // above (ED, F4), so one of these two completions works where any does.
  for (const char fill : {'\x80', '\xBF'}) {
    candidate.assign(tail);
    while (candidate.size() < 4) {
      candidate.push_back(fill);
      const Utf8Char c = decode_utf8(candidate);
      if (c.valid && c.length == candidate.size()) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  size_t i = 0;
  while (i < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(i);
    const Utf8Char c = decode_utf8(rest);
    if (c.valid) {
      out.append(rest.substr(0, c.length));
      i += c.length;
      continue;
    }
    // A bad sequence is replaced by one U+FFFD for each longest part that could have begun a
    // character (the practice that Unicode recommends, and browsers follow).
    size_t begun = 0;
    while (begun < rest.size() && begun < 3 && could_grow(rest.substr(0, begun + 1))) {
      ++begun;
    }
    if (begun == rest.size()) {
      break;  // wait for the other bytes
    }
    append_utf8(out, kReplacementCharacter);
    i += begun == 0 ? 1 : begun;
  }
  pending_.erase(0, i);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out;
  if (!pending_.empty()) {
    append_utf8(out, kReplacementCharacter);
    pending_.clear();
  }
  return out;
}

}  // namespace hetero

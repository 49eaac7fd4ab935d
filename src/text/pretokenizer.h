// Cutting text into the words within which byte-level BPE merges.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hetero {

/// Applies a list of regular expressions, each to the pieces that the one before left: every match
/// is a piece of its own, and so is every gap between matches. Immutable, any number of threads.
class PreTokenizer {
 public:
  /// What `tokenizer.ggml.pre` implies besides the patterns.
  struct Traits {
    bool whole_words = false;   // a word that is a token is not built from merges
    bool adds_bos = false;      // where the file does not say
    bool cleans_spaces = true;  // decoding drops the space in " ." and the like
    bool characters = false;    // tokens spell characters, spaces as U+2581, and not bytes
  };

  /// An unknown name is an error that names it.
  static Result<PreTokenizer> create(std::string_view name);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  const Traits& traits() const { return traits_; }

  /// Views of `text`, in order, that cover all of it. Bytes that are no UTF-8 count as U+FFFD.
  Result<std::vector<std::string_view>> split(std::string_view text) const;

 private:
  struct Impl;
  PreTokenizer(std::unique_ptr<Impl> impl, const Traits& traits);
  std::unique_ptr<Impl> impl_;
  Traits traits_;
};

}  // namespace hetero

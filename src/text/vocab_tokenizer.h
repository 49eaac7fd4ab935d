// What BPE and SPM tokenizers have in common: special tokens in the text, BOS and EOS around it.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace hetero {

class VocabTokenizer : public Tokenizer {
 public:
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special,
                                      bool parse_special) const final;

 protected:
  explicit VocabTokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  const Vocabulary& vocabulary() const { return vocabulary_; }

  /// Appends the ids of ordinary text. `at_start`: nothing or a special token stands before it.
  virtual Status encode_text(std::string_view text, bool at_start, std::vector<TokenId>& ids) const = 0;

 private:
  friend class Tokenizer;  // load() completes what create() began

  Vocabulary vocabulary_;
  SpecialTokens special_tokens_;
};

}  // namespace hetero

#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "text/bpe.h"
#include "text/spm.h"
#include "text/vocab_tokenizer.h"

namespace hetero {
namespace {

// An id that the metadata names, or `fallback` where the key is missing and the vocabulary is large
// enough to have it.
Result<TokenId> token_id(const GgufFile& file, const Vocabulary& vocabulary, const char* key,
                         TokenId fallback) {
  if (file.find(key) == nullptr) {
    return vocabulary.contains(fallback) ? fallback : -1;
  }
  HETERO_TRY(const int64_t id, file.get_int(key));
  if (!vocabulary.contains(id)) {
    return malformed(fmt::format("{}: '{}' is {}, expected an id below the vocabulary's size {}", file.path(),
                                 key, id, vocabulary.texts.size()));
  }
  return static_cast<TokenId>(id);
}

// Whether encoding adds BOS or EOS; doing so needs to know the token.
Result<bool> adds(const GgufFile& file, const char* key, bool fallback, const char* id_key, TokenId id) {
  if (file.find(key) == nullptr) {
    return fallback && id >= 0;
  }
  HETERO_TRY(const bool value, file.get_bool_or(key, fallback));
  if (value && id < 0) {
    return malformed(fmt::format("{}: '{}' is true, but '{}' is missing", file.path(), key, id_key));
  }
  return value;
}

// Phi-3's special tokens swallow the white space behind them, except the three below. The files do
// not say so; like llama.cpp (src/llama-vocab.cpp), this goes by the model's name.
Result<std::vector<bool>> tokens_that_strip(const GgufFile& file, const Vocabulary& v) {
  HETERO_TRY(std::string name, file.get_string_or("general.name", ""));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) {
    return std::vector<bool>();
  }
  std::vector<bool> strips(v.texts.size(), true);
  for (const std::string_view text : {"<unk>", "<s>", "<|endoftext|>"}) {
    if (const TokenId id = v.find(text); id >= 0) {
      strips[static_cast<size_t>(id)] = false;
    }
  }
  return strips;
}

}  // namespace

Result<std::unique_ptr<const Tokenizer>> Tokenizer::load(const GgufFile& file) {
  HETERO_TRY(const std::string model, file.get_string("tokenizer.ggml.model"));
  if (model != "gpt2" && model != "gemma4" && model != "llama") {
    return unsupported(fmt::format(
        "{}: 'tokenizer.ggml.model' is '{:.64}', expected 'gpt2' or 'gemma4' (BPE) or 'llama' (SPM)",
        file.path(), model));
  }
  HETERO_TRY(Vocabulary loaded, load_vocabulary(file));
  std::unique_ptr<VocabTokenizer> t;
  SpmTokenizer* spm = nullptr;
  bool adds_bos = true;
  if (model != "llama") {
    HETERO_TRY(auto bpe, BpeTokenizer::create(file, std::move(loaded)));
    adds_bos = bpe->traits().adds_bos;
    t = std::move(bpe);
  } else {
    HETERO_TRY(auto created, SpmTokenizer::create(file, std::move(loaded)));
    spm = created.get();
    t = std::move(created);
  }

  const Vocabulary& v = t->vocabulary();
  // SentencePiece has fixed places for its special tokens, BPE has not.
  HETERO_TRY(t->bos_, token_id(file, v, "tokenizer.ggml.bos_token_id", spm != nullptr ? 1 : -1));
  HETERO_TRY(t->eos_, token_id(file, v, "tokenizer.ggml.eos_token_id", spm != nullptr ? 2 : -1));
  HETERO_TRY(const TokenId eot, token_id(file, v, "tokenizer.ggml.eot_token_id", -1));
  HETERO_TRY(const TokenId eom, token_id(file, v, "tokenizer.ggml.eom_token_id", -1));
  if (spm != nullptr) {
    HETERO_TRY(const TokenId unknown, token_id(file, v, "tokenizer.ggml.unknown_token_id", 0));
    spm->set_unknown(unknown);
  }
  HETERO_TRY(t->adds_bos_,
             adds(file, "tokenizer.ggml.add_bos_token", adds_bos, "tokenizer.ggml.bos_token_id", t->bos_));
  HETERO_TRY(t->adds_eos_,
             adds(file, "tokenizer.ggml.add_eos_token", false, "tokenizer.ggml.eos_token_id", t->eos_));
  t->size_ = static_cast<int64_t>(v.texts.size());

  t->end_tokens_ = known_end_tokens(v);
  for (const TokenId id : {t->eos_, eot, eom}) {
    if (id >= 0 && !t->is_end(id)) {
      t->end_tokens_.push_back(id);
    }
  }

  HETERO_TRY(std::vector<bool> strips, tokens_that_strip(file, v));
  HETERO_TRY(t->special_tokens_, SpecialTokens::build(file, v, std::move(strips)));
  return std::unique_ptr<const Tokenizer>(std::move(t));
}

bool Tokenizer::is_end(TokenId id) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), id) != end_tokens_.end();
}

Result<std::vector<TokenId>> VocabTokenizer::encode(std::string_view text, bool add_special,
                                                    bool parse_special) const {
  std::vector<TokenId> ids;
  if (add_special && adds_bos_) {
    ids.push_back(bos_);
  }
  bool at_start = true;
  for (const SpecialTokens::Fragment& fragment : special_tokens_.split(text, parse_special)) {
    if (fragment.id >= 0) {
      ids.push_back(fragment.id);
    } else {
      HETERO_RETURN_IF_ERROR(encode_text(fragment.text, at_start, ids));
    }
    at_start = fragment.id >= 0;
  }
  if (add_special && adds_eos_) {
    ids.push_back(eos_);
  }
  return ids;
}

}  // namespace hetero

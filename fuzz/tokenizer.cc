// Text of any bytes. The first byte chooses the vocabulary and the flags. FUZZ_VOCABULARY names a GGUF
// file to use instead of the small vocabularies made here.
#include "text/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "gguf/writer.h"
#include "memory_file.h"
#include "text/unicode.h"

namespace {

using hetero::GgufFile;
using hetero::Tokenizer;

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

std::unique_ptr<const Tokenizer> load(const std::string& path) {
  auto file = GgufFile::open(path);
  require(file.ok(), file.status().message().c_str());
  auto tokenizer = Tokenizer::load(**file);
  require(tokenizer.ok(), tokenizer.status().message().c_str());
  return std::move(tokenizer).value();
}

std::unique_ptr<const Tokenizer> make(const std::string& model, const std::string& pre) {
  const bool bpe = model == "gpt2";
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;
  const auto add = [&](const std::string& text, int type) {
    tokens.push_back(text);
    types.push_back(type);
    scores.push_back(-static_cast<float>(tokens.size()));
  };
  if (!bpe) {
    add("<unk>", 2);
  }
  add("<s>", 3);
  add("</s>", 3);
  for (int byte = 0; byte < 256; ++byte) {
    std::string symbol;
    hetero::append_utf8(symbol, hetero::byte_alphabet_char(static_cast<uint8_t>(byte)));
    add(bpe ? symbol : fmt::format("<0x{:02X}>", byte), bpe ? 1 : 6);
  }
  const std::string space = bpe ? "\u0120" : "\u2581";
  for (const char* word : {"in", "er", "on", "the", "ing", "'s", "00", "..", "\u010a\u010a"}) {
    add(word, 1);
    add(space + word, 1);
  }
  if (!bpe) {  // there it is the symbol of a byte
    add(space, 1);
  }
  add(space + space, 1);
  add("<tool>", 4);
  hetero::GgufWriter writer;
  writer.set_string("general.architecture", "llama");
  writer.set_string("tokenizer.ggml.model", model);
  if (bpe) {
    writer.set_string("tokenizer.ggml.pre", pre);
    writer.set_strings("tokenizer.ggml.merges", {"i n", "e r", "o n", "t h", "th e", "in g", "\u0120 t",
                                                 "\u0120t he", "' s", "0 0", ". ."});
  }
  writer.set_strings("tokenizer.ggml.tokens", tokens);
  writer.set_ints("tokenizer.ggml.token_type", types);
  writer.set_floats("tokenizer.ggml.scores", scores);
  const std::string bytes = writer.bytes();
  return load(hetero::MemoryFile(bytes.data(), bytes.size()).path());
}

const std::vector<std::unique_ptr<const Tokenizer>>& tokenizers() {
  static const auto* all = [] {
    auto* list = new std::vector<std::unique_ptr<const Tokenizer>>;
    if (const char* path = std::getenv("FUZZ_VOCABULARY"); path != nullptr) {
      list->push_back(load(path));
      return list;
    }
    for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2", "deepseek-coder"}) {
      list->push_back(make("gpt2", pre));
    }
    list->push_back(make("llama", ""));
    return list;
  }();
  return *all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const auto& all = tokenizers();
  const Tokenizer& t = *all[(data[0] >> 2) % all.size()];
  const bool special = (data[0] & 1) != 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto ids = t.encode(text, (data[0] & 2) != 0, special);
  require(ids.ok(), "text of any bytes must have tokens");
  hetero::Utf8Stream stream;
  std::string streamed;
  for (const hetero::TokenId id : *ids) {
    require(id >= 0 && id < t.size(), "an id outside of the vocabulary");
    streamed += stream.push(t.piece(id, true));
  }
  streamed += stream.finish();
  for (std::string_view rest = streamed; !rest.empty();) {
    const hetero::Utf8Char c = hetero::decode_utf8(rest);
    require(c.valid, "the stream printed something that is not UTF-8");
    rest.remove_prefix(c.length);
  }
  static_cast<void>(t.decode(*ids, special));
  return 0;
}

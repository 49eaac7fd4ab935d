// Which name of tokenizer.ggml.pre stands for what a tokenizer.json says about cutting text.
#include <fmt/format.h>

#include "import/hf_tokenizer.h"

namespace hetero {
namespace {

/// Line breaks as escapes: files have them in either form.
std::string escaped(const std::string& regex) {
  std::string out;
  for (const char c : regex) {
    out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : std::string(1, c);
  }
  return out;
}

/// One line for what a pre-tokenizer does; regular expressions are quoted as they are.
std::string signature(const Json& p, int depth = 0) {
  if (!p.is_object() || depth > 8) {
    return "nothing";
  }
  const std::string type = p.value("type", "");
  if (type == "Sequence") {
    std::string all;
    for (const Json& part : p.value("pretokenizers", Json::array())) {
      all += (all.empty() ? "" : " + ") + signature(part, depth + 1);
    }
    return all;
  }
  if (type == "Split") {
    const Json pattern = p.value("pattern", Json::object());
    const std::string text =
        escaped(pattern.is_object() ? pattern.value("Regex", pattern.value("String", "")) : "");
    const std::string behavior = p.value("behavior", "");
    // Matches isolated, or gaps removed between matches: the same cuts for patterns that match all.
    return (behavior == "Isolated" || behavior == "Removed" ? "split " : "split(" + behavior + ") ") + text;
  }
  if (type == "ByteLevel") {
    return p.value("use_regex", true) ? "gpt2" : "bytes";
  }
  if (type == "Digits") {
    return p.value("individual_digits", false) ? "digit" : "digits";
  }
  if (type == "Punctuation") {
    return "punctuation " + p.value("behavior", "Isolated");
  }
  return type;
}

struct Known {
  const char* name;
  const char* signature;
};

#define HETERO_HF_CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define HETERO_HF_END R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ + bytes)"
#define HETERO_HF_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define HETERO_HF_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"

// As the tokenizer.json files of these families have them.
constexpr Known kKnown[] = {
    {"gpt-2", "gpt2"},
    {"smollm", "digit + gpt2"},
    {"llama-bpe", "split " HETERO_HF_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})" HETERO_HF_END},
    {"qwen2", "split " HETERO_HF_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" HETERO_HF_END},
    {"qwen35",
     "split " HETERO_HF_CONTRACTIONS
     R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ + bytes)"},
    {"tekken", R"(split [^\r\n\p{L}\p{N}]?)" HETERO_HF_UPPER "*" HETERO_HF_LOWER
               R"(+|[^\r\n\p{L}\p{N}]?)" HETERO_HF_UPPER "+" HETERO_HF_LOWER
               R"(*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ + bytes)"},
    {"gpt-4o", R"(split [^\r\n\p{L}\p{N}]?)" HETERO_HF_UPPER "*" HETERO_HF_LOWER "+" HETERO_HF_CONTRACTIONS
               R"(?|[^\r\n\p{L}\p{N}]?)" HETERO_HF_UPPER "+" HETERO_HF_LOWER "*" HETERO_HF_CONTRACTIONS
               R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ + bytes)"},
    {"deepseek-coder",
     R"(split [\r\n] + split \s?\p{L}+ + split \s?\p{P}+ + split [一-龥ࠀ-一가-퟿]+ + digit + bytes)"},
    {"deepseek-v3",
     R"(split \p{N}{1,3} + split [一-龥぀-ゟ゠-ヿ]+ + split [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
     R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ + bytes)"},
};

}  // namespace

Result<std::string> pre_tokenizer_name(const Json& pre_tokenizer) {
  std::string found;
  try {
    found = signature(pre_tokenizer);
  } catch (const nlohmann::json::exception&) {  // a member of another type than the format's
    return malformed("'pre_tokenizer' is not what the tokenizers library writes");
  }
  for (const Known& known : kKnown) {
    if (found == known.signature) {
      return std::string(known.name);
    }
  }
  return unsupported(fmt::format("no pre-tokenizer is known that cuts text by: {} (--pre names one)", found));
}

}  // namespace hetero

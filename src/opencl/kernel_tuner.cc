#include "opencl/kernel_tuner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "base/files.h"

namespace hetero {

KernelTuner::KernelTuner(std::string path, bool trying) : path_(std::move(path)), trying_(trying) {
  load();
}

Result<std::string> KernelTuner::choose(const std::string& key, const std::string& kind,
                                        const std::vector<std::string>& variants,
                                        const std::function<Result<double>(const std::string&)>& time) {
  std::string name = "HETERO_OPENCL_" + kind;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (const char* forced = std::getenv(name.c_str()); forced != nullptr && *forced != '\0') {
    return std::string(forced);
  }
  const auto found = choices_.find(key);
  if (found != choices_.end() &&
      std::find(variants.begin(), variants.end(), found->second.variant) != variants.end()) {
    return found->second.variant;
  }
  if (!trying_ || variants.size() == 1) {
    return variants[0];
  }
  Choice choice;
  double best = std::numeric_limits<double>::max();
  Status error;
  for (const std::string& variant : variants) {
    const Result<double> taken = time(variant);
    if (!taken.ok()) {
      error = taken.status();
      continue;
    }
    choice.times += fmt::format(" {}:{:.1f}us", variant, *taken * 1e-3);
    if (*taken < best) {
      best = *taken;
      choice.variant = variant;
    }
  }
  if (choice.variant.empty()) {
    return error;
  }
  choices_[key] = choice;
  store();
  return choice.variant;
}

void KernelTuner::load() {
  std::ifstream in(path_);
  std::string line;
  while (!path_.empty() && std::getline(in, line)) {
    const size_t first = line.find('\t');
    const size_t second = line.find('\t', first + 1);
    if (first != std::string::npos && second != std::string::npos) {
      choices_[line.substr(0, first)] = {line.substr(first + 1, second - first - 1), line.substr(second + 1)};
    }
  }
}

void KernelTuner::store() const {
  if (path_.empty()) {
    return;
  }
  std::string text;
  for (const auto& [key, choice] : choices_) {
    text += fmt::format("{}\t{}\t{}\n", key, choice.variant, choice.times);
  }
  (void)replace_file(path_, text);  // without it, the next start tries anew
}

}  // namespace hetero

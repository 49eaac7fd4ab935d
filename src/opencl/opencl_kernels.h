// The text of kernels/*.cl, embedded by cmake/EmbedText.cmake.
#pragma once

#include <string_view>

namespace hetero::opencl_kernels {

extern const std::string_view common;
extern const std::string_view flag;
extern const std::string_view angles;
extern const std::string_view elementwise;
extern const std::string_view blocks;
extern const std::string_view cache;
extern const std::string_view linear_cpu;
extern const std::string_view linear_gpu;
extern const std::string_view linear_gpu_tile;
extern const std::string_view linear_gpu_wide;
extern const std::string_view linear_gpu_matrix;
extern const std::string_view layers_gpu;
extern const std::string_view attention_cpu;
extern const std::string_view attention_gpu;
extern const std::string_view attention_split;
extern const std::string_view attention_tile;
extern const std::string_view experts;
extern const std::string_view steps_cpu;

}  // namespace hetero::opencl_kernels

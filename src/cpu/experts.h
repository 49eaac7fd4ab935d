// Mixtures of experts on the CPU: the operators Route, ExpertLinear and ExpertSum.
#pragma once

#include "cpu/ops.h"

namespace hetero::cpu {

void route(const Route& op, const Work& work, ThreadPool& pool);

/// Tokens are collected by expert, so that each expert's weights stream by once for all of them.
void expert_linear(const ExpertLinear& op, const Work& work, const Kernels& kernels, ThreadPool& pool);

/// Floats of scratch that expert_linear() needs.
int64_t expert_scratch(const Graph& graph, const Op& op, int64_t tokens, const Kernels& kernels, int threads);

void expert_sum(const ExpertSum& op, const Work& work, ThreadPool& pool);

}  // namespace hetero::cpu

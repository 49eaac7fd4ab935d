// Several operators of one token in one kernel, on devices of type CPU with one compute unit: one work-item
// does step after step, so that nothing is submitted and nothing waits in between. Included after all that
// defines tasks, with STEPS.
//
// A step is a few words: its code, the work-groups along both dimensions, how many words it has, and the
// arguments of the kernel that it stands for, one word each (opencl_steps.cc). Addresses are the host's, so
// the device must see memory as the host does.

// Of StepCode in opencl_ops.h.
#define STEP_EMBED 1
#define STEP_ROPE_TABLE 2
#define STEP_NORM 3
#define STEP_LINEAR 4
#define STEP_ROPE 5
#define STEP_ATTENTION 6
#define STEP_GATED 7
#define STEP_SOFT_CAP 8
#define STEP_ROUTE 9
#define STEP_EXPERT_LINEAR 10
#define STEP_EXPERT_SUM 11

#define STEP_HEAD 4  // words before the arguments

#define INT(i) (int)word[i]
#define LONG(i) (long)word[i]
#define FLOAT(i) as_float((uint)word[i])
#define FLOATS_AT(i) (global float*)word[i]
#define BYTES_AT(i) (global uchar*)word[i]
#define ROWS_OF(TYPE, i) (global TYPE*)word[i], LONG((i) + 1), LONG((i) + 2)
#define EACH_GROUP                                    \
  for (int group1 = 0; group1 < groups1; ++group1)    \
    for (int group0 = 0; group0 < groups0; ++group0)

kernel LANE_GROUP void run_steps(global const ulong* steps, int count) {
  for (int i = 0; i < count; ++i) {
    const int groups0 = (int)steps[1], groups1 = (int)steps[2];
    global const ulong* word = steps + STEP_HEAD;
    switch ((int)steps[0]) {
      case STEP_EMBED:
        EACH_GROUP embed(ROWS_OF(int, 0), ROWS_OF(float, 3), BYTES_AT(6), LONG(7), INT(8), INT(9), FLOAT(10),
                         INT(11), group0, group1);
        break;
      case STEP_ROPE_TABLE:
        EACH_GROUP rope_table(ROWS_OF(float, 0), FLOATS_AT(3), INT(4), FLOAT(5), INT(6), INT(7), group0, group1);
        break;
      case STEP_NORM:
        EACH_GROUP rms_norm(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), ROWS_OF(float, 9),
                            FLOATS_AT(12), INT(13), INT(14), FLOAT(15), INT(16), group0, group1);
        break;
      case STEP_LINEAR:
        EACH_GROUP linear_vector(ROWS_OF(float, 0), ROWS_OF(float, 3), BYTES_AT(6), LONG(7), FLOATS_AT(8), INT(9),
                                 INT(10), INT(11), INT(12), group0, group1);
        break;
      case STEP_ROPE:
        EACH_GROUP rope(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), ROWS_OF(uchar, 9),
                        ROWS_OF(uchar, 12), FLOATS_AT(15), INT(16), FLOAT(17), INT(18), INT(19), INT(20), INT(21),
                        INT(22), INT(23), INT(24), INT(25), group0, group1);
        break;
      case STEP_ATTENTION:
        EACH_GROUP attention(ROWS_OF(float, 0), ROWS_OF(CACHE_TYPE, 3), ROWS_OF(CACHE_TYPE, 6), ROWS_OF(float, 9),
                             INT(12), FLOAT(13), FLOAT(14), INT(15), INT(16), INT(17), group0, group1);
        break;
      case STEP_GATED:
        EACH_GROUP gated(ROWS_OF(float, 0), ROWS_OF(float, 3), INT(6), INT(7), INT(8), INT(9), group0, group1);
        break;
      case STEP_SOFT_CAP:
        EACH_GROUP soft_cap(ROWS_OF(float, 0), ROWS_OF(float, 3), INT(6), FLOAT(7), INT(8), INT(9), group0, group1);
        break;
      case STEP_ROUTE:
        EACH_GROUP route(ROWS_OF(float, 0), ROWS_OF(float, 3), INT(6), INT(7), INT(8), INT(9), FLOAT(10), INT(11),
                         group0, group1);
        break;
      case STEP_EXPERT_LINEAR:
        EACH_GROUP expert_linear(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), BYTES_AT(9), LONG(10),
                                 INT(11), INT(12), INT(13), INT(14), INT(15), INT(16), group0, group1);
        break;
      case STEP_EXPERT_SUM:
        EACH_GROUP expert_sum(ROWS_OF(float, 0), ROWS_OF(float, 3), ROWS_OF(float, 6), ROWS_OF(float, 9), INT(12),
                              INT(13), INT(14), INT(15), INT(16), group0, group1);
        break;
    }
    steps += steps[3];
  }
}

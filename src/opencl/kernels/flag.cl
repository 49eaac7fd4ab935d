// Tells the host, through memory that both see at once, how far the queue has come (OpenCL 2.0).
kernel void flag(global atomic_uint* word, uint ticket) {
  atomic_store_explicit(word, ticket, memory_order_release, memory_scope_all_svm_devices);
}
